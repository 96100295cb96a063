"""What can go wrong, in few classes. A message holds the value, the limit and the setting's name."""


class EdgeError(Exception):
    """Base of every error that microedge raises on purpose; its text is meant for the user as it stands."""


class ConfigError(EdgeError, ValueError):
    """The configuration or the command line is wrong. Exit code 2."""


class SourceError(EdgeError, OSError):
    """A frame source cannot be opened or has failed for good: no such file, no video in it, no camera."""


class StuckError(EdgeError, OSError):
    """A camera hangs and cannot be closed: it may still be on, and only another process can open it again."""


class PinError(EdgeError, OSError):
    """A GPIO pin cannot be driven or read."""


class ModelError(EdgeError, ValueError):
    """A model file is absent, damaged, not the one its passport describes, or has unexpected tensors."""


class PublishError(EdgeError, OSError):
    """An event could not be handed to a sink."""


class HistoryError(EdgeError, OSError):
    """The events kept on this device cannot be read."""
