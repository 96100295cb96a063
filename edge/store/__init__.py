"""What the device keeps on disk: events until they have arrived, and then as history for a while.

`outbox` is used by the running device; `history` reads the same file for a person, beside it.
"""
