"""microedge: frames -> face -> motion -> spot -> event -> store -> out.

A camera frame becomes an aligned crop of the followed face (`face`), the crop becomes regional motion with
head motion removed (`motion`), the motion becomes candidate intervals (`spot`), those that pass the gates
become events (`event`), events are kept on disk (`store`) and leave over MQTT, LEDs and JSON lines (`out`).
`pipeline` is that path up to the event, without I/O of its own; `app` puts the parts together.
"""

import os

# The products on the path are small: OpenBLAS would wake the other cores for them and let them spin, which
# doubled the CPU time per frame. It reads this when numpy is first imported, so it must stand here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
