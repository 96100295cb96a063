"""Stands in for kms++, which picamera2 imports for its preview window on a monitor; Debian does not package it."""


class _AnyFormat(type):
    def __getattr__(cls, name: str) -> str:
        return name


class PixelFormat(metaclass=_AnyFormat):
    """Has any format that is asked for."""
