"""`microedge demo`: the whole device on one computer, without hardware and without an installed broker.

A portrait moves (`frames.synthetic`), the real path watches it, events travel through a real MQTT broker (pure
Python, in this process), a real subscriber takes them off it, and only those are shown, beside the truth that
was planted. The LEDs are the real `Leds` on gpiozero's simulated pins, and what is drawn is read from the pins.
"""

import argparse
import json
import queue
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paho.mqtt.client as paho
from gpiozero.pins.mock import MockFactory
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console

from edge.app import App
from edge.commands import StopRequest, configuration, log_to_stderr
from edge.commands.broker import LoopbackBroker
from edge.commands.demo_view import Lamps, LiveView, PlainView, Scene, View
from edge.commands.score import Score
from edge.config import Config
from edge.errors import EdgeError, SourceError
from edge.face.detect import CONFIRMED_SCORE, Detector
from edge.face.landmarks import LandmarkNet, find_in_still
from edge.frames.paced import PacedSource
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.synthetic import SyntheticSource
from edge.inference.models import load_models
from edge.out import Payload

LOOK_S = 0.025
"""How often the pins are read: the shortest light of an event LED is a ninth of `leds.pulse_ms`."""
RETURN_S = 5.0
"""Time that the last events get to come back once the stream has ended."""


def main(arguments: argparse.Namespace) -> int:
    """Play the demo; 0 if at least one planted micro-expression came back through the broker, else 1."""
    plain = arguments.no_tty or not sys.stdout.isatty()
    config = configuration(arguments, of_device=False)
    log_to_stderr(config, least=100)
    photo, landmarks = _face(arguments.photo, config)
    source = SyntheticSource(
        photo, landmarks, rate_hz=arguments.rate, size=(config.camera.width, config.camera.height),
        seconds=arguments.seconds, seed=arguments.seed, start_time_ns=time.time_ns(),
    )  # fmt: skip
    score = Score(source.truth)
    broker = LoopbackBroker()
    try:
        config = _of_demo(config, broker.port)
        topic = f"{config.mqtt.topic_prefix}/{config.device.id}/event"
        with Subscriber(broker.port, topic) as subscriber:
            console = Console(highlight=False, width=100 if plain and not sys.stdout.isatty() else None)
            view = (PlainView if plain else LiveView)(console, source, f"127.0.0.1:{broker.port}", topic)
            failure = _play(config, source, score, subscriber, view)
            view.conclude(score, failure)
    finally:
        broker.close()
    if failure:
        raise EdgeError(failure)
    return 0 if score.came_back else 1


def _play(config: Config, source: SyntheticSource, score: Score, subscriber: "Subscriber", view: View) -> str:
    """Run the device until the stream ends; give why it failed, empty if it did not."""
    pins = MockFactory()
    with (
        StopRequest() as stop,
        view,
        App(config, lambda: PacedSource(source), is_live=False, pin_factory=pins) as app,
    ):
        began_s, deadline_s = time.monotonic(), 0.0
        while not stop.is_made:
            app.attend()
            for payload in subscriber.arrived():
                if (row := score.take(payload, app.media_s)) is not None:
                    view.came_back(row, score)
            view.show(
                Scene(
                    media_s=app.media_s, wall_s=time.monotonic() - began_s, statistics=app.statistics,
                    sees_face=app.sees_face, lamps=_lamps(pins, config), score=score,
                )
            )  # fmt: skip
            if not app.is_running:
                deadline_s = deadline_s or time.monotonic() + RETURN_S
                if score.received >= app.events or time.monotonic() > deadline_s:
                    break
            time.sleep(LOOK_S)
        app.close()
        view.show_lamps(_lamps(pins, config))
    return app.failure


def _of_demo(config: Config, port: int) -> Config:
    return replace(
        config,
        device=replace(config.device, id="demo", purpose="demonstration"),
        leds=replace(config.leds, enabled=True),
        # The embedded broker speaks 3.1.1 alone and knows no users.
        mqtt=replace(
            config.mqtt, enabled=True, host="127.0.0.1", port=port, protocol="3.1.1", username="",
            password_file="", alternates=(), transport="tcp", tls=False, ca_file="", certificate_file="", key_file="",
        ),
    )  # fmt: skip


def _face(path: Path | None, config: Config) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Give a photo and its landmarks: the portrait, or the largest face of the user's own.

    Raises:
        SourceError: no such picture, or no face in it.
    """
    if path is None:
        return load_portrait(), portrait_landmarks()
    if not path.is_file():
        raise SourceError(f"{path}: no such file")
    luma = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if luma is None:
        raise SourceError(f"{path}: not a picture that can be read")
    photo = np.asarray(luma, np.uint8)
    models = load_models(config)
    try:
        landmarks = find_in_still(
            photo, Detector(models.detector, score_min=CONFIRMED_SCORE), LandmarkNet(models.landmark)
        )
    finally:
        models.close()
    if landmarks is None:
        raise SourceError(f"{path}: no face found in this picture; --photo needs one frontal face")
    return photo, landmarks


def _lamps(pins: Any, config: Config) -> Lamps:
    """Read the simulated pins; an LED that is configured absent is dark."""

    def is_lit(pin: int) -> bool:
        return pin >= 0 and bool(pins.pin(pin).state)

    leds = config.leds
    colour = (is_lit(leds.red_pin), is_lit(leds.green_pin), is_lit(leds.blue_pin))
    return Lamps(is_lit(leds.capture_pin), colour, is_lit(leds.fault_pin))


class Subscriber:
    """A subscriber of its own, as a dashboard would be one; it knows nothing but the topic."""

    def __init__(self, port: int, topic: str) -> None:
        self._port, self._topic = port, topic
        self._arrived: queue.SimpleQueue[Payload] = queue.SimpleQueue()
        self._subscribed: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="demo-subscriber")
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.put(True)
        self._client.on_message = lambda _client, _data, message: self._arrived.put(
            json.loads(message.payload)
        )

    def __enter__(self) -> "Subscriber":
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        try:
            self._subscribed.get(timeout=RETURN_S)
        except queue.Empty:
            self._client.loop_stop()
            raise EdgeError(f"demo broker on 127.0.0.1:{self._port}: does not accept a subscriber") from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def arrived(self) -> list[Payload]:
        """Give what has arrived since the last call."""
        payloads = []
        while not self._arrived.empty():
            payloads.append(self._arrived.get())
        return payloads
