"""Training, evaluation and slow proofs: commands for the bench, not for the device."""

import edge  # noqa: F401  first of all, because it keeps numpy's OpenBLAS to one thread
