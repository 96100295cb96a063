"""Training, evaluation and slow proofs: commands for the bench, not for the device."""
