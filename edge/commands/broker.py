"""The MQTT broker that `demo` carries with it: pure Python, on a free loopback port, gone with the command.

Decision: a thread here, although STYLE leaves threads to `app` and `out/mqtt`. The broker stands for another
machine on the network; nothing of the device's path runs in it.
"""

import asyncio
import logging
import socket
import threading
from typing import Any

from edge.errors import EdgeError

START_TIMEOUT_S = 20.0
"""Importing the broker and binding its port takes a Raspberry Pi a few seconds."""


class LoopbackBroker:
    """A broker for this computer alone; it speaks MQTT 3.1.1 and forgets everything when closed.

    Raises:
        EdgeError: amqtt is not installed, or the broker does not start.
    """

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._broker_class = _amqtt_broker()
        self._loop = asyncio.new_event_loop()
        self._running = threading.Event()
        self._problem: Exception | None = None
        self._broker: Any = None
        self._thread = threading.Thread(target=self._serve, name="demo broker", daemon=True)
        self._thread.start()
        if not self._running.wait(START_TIMEOUT_S) or self._problem is not None:
            why = self._problem or f"no answer within {START_TIMEOUT_S:g} s"
            raise EdgeError(f"demo broker on 127.0.0.1:{self.port}: does not start: {why}") from self._problem

    def close(self) -> None:
        """Disconnect every client and stop. May be called again."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._start())
        except Exception as error:
            # Whatever the library raises is for the thread that waits in the constructor.
            self._problem = error
            self._running.set()
            return
        self._running.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._stop())
        self._loop.close()

    async def _start(self) -> None:
        self._broker = self._broker_class(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
                },
            }
        )
        await self._broker.start()

    async def _stop(self) -> None:
        await self._broker.shutdown()
        # Sessions of clients that are still connected end here, not in a warning at exit.
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _amqtt_broker() -> Any:
    try:
        from amqtt.broker import Broker
    except ImportError as error:
        raise EdgeError(
            "the demo needs the broker amqtt, which is absent: pip install 'microedge[demo]'"
        ) from error
    # They narrate every packet; what matters shows as a lost connection on our side.
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return Broker
