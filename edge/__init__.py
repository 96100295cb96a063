"""microedge: frames -> face -> motion -> spot -> event -> out.

A camera frame becomes an aligned crop of the followed face (`face`), the crop becomes regional motion with
head motion removed (`motion`), the motion becomes candidate intervals (`spot`), those that pass the gates
become events (`event`), and events leave over MQTT, LEDs and JSON lines (`out`). `pipeline` is that path in
order, without I/O of its own; `app` puts the parts together.
"""

__version__ = "0.1.0"
