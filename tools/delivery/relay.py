"""The network between a device and its broker: a TCP relay that refuses, cuts, abandons, stalls, swallows, and heals.

A network loses no bytes within a connection, so a connection whose answers were swallowed can only end: `heal` cuts
it, as a router that has forgotten it would.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST instead of FIN. Source: socket(7)."""
_HIGH_WATER = 1 << 16
"""Bytes that may wait to be sent before the relay stops reading, as a network's buffers would."""


class Relay:
    """A listening port whose connections are passed on to a broker. Any thread; whoever constructs it closes it.

    Every call has taken effect when it returns. Connections are all treated alike.
    """

    def __init__(self, target_port: int, *, target_host: str = "127.0.0.1") -> None:
        self.target = (target_host, target_port)
        self.is_refusing = self.is_stalled = self.is_deaf = False
        self.accepted = self.cuts = 0
        """Connections taken, and connections broken by `cut`, so far."""
        self.bytes_left: int | None = None
        """Bytes towards the broker that still pass before everything is cut; None: all."""
        self.pairs: set[_Pair] = set()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._server = self._do(self._listen(listener))

    def refuse(self) -> None:
        """Reset new connections from now on; the present ones stay."""
        self._call(lambda: setattr(self, "is_refusing", True))

    def cut(self) -> None:
        """Break every connection at once, on both sides, with a reset."""
        self._call(self.reset_all)

    def cut_after(self, size: int) -> None:
        """Cut, and refuse from then on, once `size` more bytes have gone to the broker: mostly within a message."""
        self._call(lambda: setattr(self, "bytes_left", size))

    def abandon(self) -> None:
        """Reset the device's side only: the broker goes on believing in connections that nobody holds."""
        self._call(self._abandon)

    def stall(self) -> None:
        """Pass nothing any more, in neither direction; new connections are accepted, and nothing follows."""
        self._call(self._stall)

    def swallow(self) -> None:
        """Pass on what goes to the broker, and drop what comes from it."""
        self._call(lambda: setattr(self, "is_deaf", True))

    def heal(self) -> None:
        """Pass everything again; what was held up arrives, connections with swallowed bytes are cut."""
        self._call(self._heal)

    def close(self) -> None:
        """Cut everything and free the port. May be called again."""
        if not self._loop.is_running():
            return
        self._call(self._server.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def reset_all(self) -> None:
        for pair in tuple(self.pairs):
            self.cuts += 1
            pair.reset()

    def _abandon(self) -> None:
        for pair in tuple(self.pairs):
            self.cuts += 1
            pair.abandon()

    def _stall(self) -> None:
        self.is_stalled = True
        for pair in self.pairs:
            pair.hold()

    def _heal(self) -> None:
        self.is_refusing = self.is_stalled = self.is_deaf = False
        self.bytes_left = None
        for pair in tuple(self.pairs):
            if pair.has_swallowed and not pair.is_abandoned:
                self.cuts += 1
                pair.reset()
            else:
                pair.release()

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Pair(self).near, sock=listener)

    def _call(self, function: Callable[[], None]) -> None:
        async def called() -> None:
            function()

        self._do(called())

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


class _Pair:
    """One connection from the device and the one to the broker that belongs to it. In the relay's thread only."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.near, self.far = _End(self, is_near=True), _End(self, is_near=False)
        self.has_swallowed = self.is_abandoned = False
        self._connecting: asyncio.Task[None] | None = None

    def accept(self) -> None:
        """Begin to serve a connection that the device has made."""
        self.relay.accepted += 1
        if self.relay.is_refusing:
            self.near.reset()
            return
        self.relay.pairs.add(self)
        loop = asyncio.get_running_loop()
        # Nothing is read before there is somewhere to put it; asyncio begins to read only after this call, so pausing
        # now would be undone.
        loop.call_soon(self.near.pause)
        self._connecting = loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.far, *self.relay.target)
        except OSError:
            self.reset()
            return
        if self not in self.relay.pairs:
            self.far.reset()
        elif self.relay.is_stalled:
            self.far.pause()
        else:
            self.near.resume()

    def passed(self, source: "_End", data: bytes) -> None:
        """Take what came in at one end to the other."""
        relay = self.relay
        if not source.is_near:
            if relay.is_deaf:
                self.has_swallowed = True
            elif not self.is_abandoned:
                self.near.send(data)
            return
        if relay.bytes_left is not None:
            data = data[: relay.bytes_left]
            relay.bytes_left -= len(data)
        self.far.send(data)
        if relay.bytes_left == 0:
            relay.is_refusing, relay.bytes_left = True, None
            relay.reset_all()

    def hold(self) -> None:
        self.near.pause()
        self.far.pause()

    def release(self) -> None:
        if self.far.is_open:
            self.near.resume()
            self.far.resume()

    def abandon(self) -> None:
        self.is_abandoned = True
        self.near.reset()

    def ended(self, source: "_End") -> None:
        """One end was closed in good order or broken by its peer: so is the other, unless it was abandoned."""
        if source.is_near and self.is_abandoned:
            return
        self.relay.pairs.discard(self)
        self.near.close()
        self.far.close()

    def reset(self) -> None:
        self.relay.pairs.discard(self)
        self.near.reset()
        self.far.reset()


class _End(asyncio.Protocol):
    """One end of a pair."""

    def __init__(self, pair: _Pair, *, is_near: bool) -> None:
        self.is_near = is_near
        self._pair = pair
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER)
        if self.is_near:
            self._pair.accept()

    def data_received(self, data: bytes) -> None:
        self._pair.passed(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self._pair.ended(self)

    def pause_writing(self) -> None:
        self._other.pause()

    def resume_writing(self) -> None:
        if not self._pair.relay.is_stalled:
            self._other.resume()

    def send(self, data: bytes) -> None:
        if self._transport is not None and self.is_open:
            self._transport.write(data)

    def pause(self) -> None:
        if self._transport is not None and self.is_open:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self.is_open:
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET
                )
            self._transport.abort()

    @property
    def _other(self) -> "_End":
        return self._pair.far if self.is_near else self._pair.near
