"""Writes each event as one line of JSON to a file or to standard output."""

import sys
from pathlib import Path

from edge.errors import PublishError
from edge.out import Payload
from edge.payload import encode
from edge.records import Event


class JsonLinesSink:
    """An `EventSink` that writes a line per event, whole and at once.

    A line goes out in one piece as it happens, so a reader that follows the file never waits for a buffer.
    """

    def __init__(self, path: Path | None, append: bool = False) -> None:
        """Open `path` (None: standard output), emptied first unless `append`.

        Raises:
            PublishError: naming the file, if it cannot be opened for writing.
        """
        self._name = str(path) if path is not None else "standard output"
        self._owned = path is not None
        try:
            # Sized to hold a line, so that a flush is one write.
            self._stream = (
                sys.stdout
                if path is None
                else path.open("a" if append else "w", 1 << 16, "utf-8", newline="\n")
            )
        except OSError as error:
            raise PublishError(f"{self._name}: cannot be written: {error.strerror}") from error

    def publish(self, event: Event, payload: Payload) -> None:
        """Write the payload as one line.

        Raises:
            PublishError: naming the file, if the disk is full or the reader has gone.
        """
        line = encode(payload) + "\n"
        try:
            self._stream.write(line)
            self._stream.flush()
        except OSError as error:
            raise PublishError(f"{self._name}: an event could not be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; standard output stays open. May be called again."""
        if self._owned:
            try:
                self._stream.close()
            except OSError as error:
                raise PublishError(f"{self._name}: could not be completed: {error.strerror}") from error
