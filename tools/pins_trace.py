"""Run the device through a scene and print what its pins did, from the first light to the last.

python -m tools.pins_trace [--picture trace.svg]

The whole device runs on the animated portrait at 100 frames/s, with gpiozero's simulated pins and a mosquitto of its
own: seven emotions, a pause over MQTT, the privacy switch, a camera that breaks and comes back, a broker that does, the
identify button, the end. Times are real. What the LEDs told is read back from the pins, by colour, rhythm and number of
blinks. The last line is JSON; ends with status 1 if a frame was read in the dark or an LED did not tell what it should.
Takes one to two minutes. Needs mosquitto (Debian: apt install mosquitto) and matplotlib, which carries the portrait.
"""

import argparse
import json
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from gpiozero.pins.mock import MockFactory, MockPin
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion

from edge.app import App
from edge.config import Config, load
from edge.errors import SourceError
from edge.frames.looped import to_and_fro
from edge.frames.portrait import load_portrait, portrait_landmarks
from edge.frames.script import Script
from edge.frames.synthetic import SyntheticSource
from edge.out import Payload
from edge.out.leds import SIGNALS, Fault
from edge.records import EMOTIONS, Event, Frame
from tools.delivery.broker import MOSQUITTO, Broker
from tools.pins_signals import CUT_SHORT, Change, Signal, signals

RATE_HZ = 100.0
SCRIPT = Script(
    micro_per_min=45.0, micro_duration_ms=(110.0, 180.0), micro_peak_iod=(0.024, 0.025), blink_per_min=0.0
)
SECONDS, SEED = 14.0, 34
"""The seed has every emotion in so many seconds, and the models find each of them."""
STILL_S = 1.5
"""The portrait's face is at rest for so long at the start; that part is what goes on afterwards."""
PRIVACY_PIN, IDENTIFY_PIN = 5, 6
WAIT_S = 60.0


class Trace:
    """What happened when, from all threads; appending to a list needs no lock."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.changes: list[Change] = []
        self.steps: list[tuple[float, str]] = []
        self.frames = self.frames_in_the_dark = 0
        self.is_lit = False

    def now_s(self) -> float:
        return time.monotonic() - self.began_s

    def note(self, lane: str, is_on: bool) -> None:
        if lane == "capture":
            self.is_lit = is_on
        self.changes.append(Change(self.now_s(), lane, is_on))

    def step(self, what: str) -> float:
        self.steps.append((self.now_s(), what))
        return self.steps[-1][0]


def traced_pins(trace: Trace, lanes: dict[int, str]) -> MockFactory:
    """Give simulated pins whose outputs note every change, under the names of `lanes`."""

    class TracedPin(MockPin):
        shown = False

        def _set_state(self, value: Any) -> None:
            super()._set_state(value)
            self._show()

        def _set_function(self, value: str) -> None:
            super()._set_function(value)
            self._show()

        def _show(self) -> None:
            is_on = bool(self._function == "output" and self._state)
            lane = lanes.get(int(self.info.name.removeprefix("GPIO")))
            if lane is not None and is_on != self.shown:
                self.shown = is_on
                trace.note(lane, is_on)

    return MockFactory(pin_class=TracedPin)


class Camera:
    """Plays kept pictures as a camera would; breaks, and refuses to open, when it is told to."""

    name = "portrait"
    size = (320, 240)
    nominal_rate_hz = RATE_HZ
    duration_s: float | None = None
    frames_out_of_order = 0

    breaks = refuses = False
    openings = 0

    def __init__(self, pictures: list[NDArray[Any]], trace: Trace) -> None:
        self._pictures, self._trace = pictures, trace
        self.warnings: list[str] = []
        trace.note("camera", True)
        if Camera.refuses:
            trace.note("camera", False)
            raise SourceError("camera 0: not there")
        Camera.breaks = False
        self._is_first = Camera.openings == 0
        Camera.openings += 1
        self.start_time_ns = time.time_ns()

    def frames(self) -> Iterator[Frame]:
        began_s = time.monotonic()
        still = round(STILL_S * RATE_HZ)
        for sequence in range(10_000_000):
            time.sleep(max(began_s + sequence / RATE_HZ - time.monotonic(), 0.0))
            if Camera.breaks:
                raise SourceError("camera 0: no frame for 2 s; check the camera's cable")
            self._trace.frames += 1
            self._trace.frames_in_the_dark += not self._trace.is_lit
            place = (
                sequence if self._is_first and sequence < len(self._pictures) else to_and_fro(sequence, still)
            )
            yield Frame(self._pictures[place], round(sequence * 1e9 / RATE_HZ), sequence)

    def close(self) -> None:
        self._trace.note("camera", False)


class Emotions:
    """An event sink that keeps what was seen."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def publish(self, event: Event, payload: Payload) -> None:
        self.seen.append(event.emotion or "uncertain")

    def close(self) -> None:
        """Nothing is held."""


class Remote:
    """Somebody at the broker: commands, their answers, and the health that the device publishes."""

    def __init__(self, port: int, topic: str, trace: Trace) -> None:
        self._topic, self._trace = topic, trace
        self._answers: queue.SimpleQueue[Payload] = queue.SimpleQueue()
        self._state = ""
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        topics = [(f"{topic}/response/+", 1), (f"{topic}/health", 1)]
        self._client.on_connect = lambda client, *_: client.subscribe(topics)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def ask(self, command: str, attend: Callable[[], None]) -> Payload:
        self._client.publish(f"{self._topic}/command/{command}", b"", 1)
        deadline_s = time.monotonic() + WAIT_S
        while self._answers.empty() and time.monotonic() < deadline_s:
            attend()
        answer = self._answers.get_nowait()
        said = answer["result"] if answer["ok"] else answer["error"]["message"]
        self._trace.step(f"   answer to {command}: {json.dumps(said)}")
        return answer

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        payload = json.loads(message.payload)
        if "/response/" in message.topic:
            self._answers.put(payload)
        elif (
            state := f"{payload['state']}: {'; '.join(payload.get('reasons') or [])}".strip(": ")
        ) != self._state:
            self._state = state
            self._trace.step(f"   health: {state}")


class Scene:
    """What happens to the device, step by step."""

    def __init__(self, app: App, pins: MockFactory, broker: Broker, remote: Remote, trace: Trace) -> None:
        self._app, self._pins, self._broker, self._remote, self._trace = app, pins, broker, remote, trace

    def expressions(self) -> None:
        """All emotions; the device may lag behind the camera, and here it is waited for."""
        self._until(lambda: self._app.media_s > SECONDS + 1, "the end of the portrait's expressions")
        self._stay(1.0)

    def pause(self) -> None:
        self._trace.step("pause over MQTT")
        self._remote.ask("pause", self._attend)
        self._stay(1.0)
        self._trace.step("resume over MQTT")
        self._remote.ask("resume", self._attend)
        self._until(self._is_open, "the camera")
        self._stay(1.0)

    def privacy(self) -> tuple[float, bool]:
        """Give how long the camera stayed open, ms, and whether a resume was refused meanwhile."""
        on_s = self._trace.step("privacy switch on")
        self._trace.note("privacy", True)
        self._pins.pin(PRIVACY_PIN).drive_low()
        while self._is_open():
            time.sleep(0.0005)  # without attending: the switch needs no main thread
        closed_ms = 1000 * (self._trace.now_s() - on_s)
        self._stay(1.2)
        refusal = self._remote.ask("resume", self._attend)
        self._trace.step("privacy switch off")
        self._trace.note("privacy", False)
        self._pins.pin(PRIVACY_PIN).drive_high()
        self._until(self._is_open, "the camera")
        self._stay(1.0)
        return closed_ms, not refusal["ok"]

    def broken_camera(self) -> None:
        self._trace.step("the camera breaks")
        Camera.breaks = Camera.refuses = True
        self._until(lambda: self._shows(Fault.CAMERA), "the camera's fault")
        self._stay(4.5)
        self._trace.step("the camera is there again")
        Camera.refuses = False
        self._until(lambda: not self._shows(Fault.CAMERA), "the end of the fault")
        self._stay(0.5)

    def broken_broker(self) -> None:
        self._trace.step("the broker ends")
        self._broker.stop()
        self._until(lambda: self._shows(Fault.BROKER), "the broker's fault")
        self._stay(5.5)
        self._trace.step("the broker is there again")
        self._broker.start()
        self._until(lambda: not self._shows(Fault.BROKER), "the end of the fault")
        self._stay(0.5)

    def identify(self) -> None:
        self._trace.step("identify button")
        self._trace.note("button", True)
        self._pins.pin(IDENTIFY_PIN).drive_low()
        self._stay(0.2)
        self._trace.note("button", False)
        self._pins.pin(IDENTIFY_PIN).drive_high()
        self._stay(5.5)

    def _attend(self) -> None:
        self._app.attend()
        time.sleep(0.02)

    def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"waited {WAIT_S:g} s in vain for {what}")
            self._attend()

    def _stay(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        self._until(lambda: time.monotonic() >= end_s, "the time")

    def _is_open(self) -> bool:
        return next(change.is_on for change in reversed(self._trace.changes) if change.lane == "camera")

    def _shows(self, fault: Fault) -> bool:
        return self._app.leds is not None and fault in self._app.leds.faults


def play(config: Config, pictures: list[NDArray[Any]], broker: Broker, trace: Trace) -> dict[str, Any]:
    """Let the device live through the scene; give what was measured."""
    leds = config.leds
    lanes = {
        leds.capture_pin: "capture", leds.red_pin: "red", leds.green_pin: "green", leds.blue_pin: "blue",
        leds.fault_pin: "fault",
    }  # fmt: skip
    pins, emotions = traced_pins(trace, lanes), Emotions()
    trace.step("start")
    with App(
        config, lambda: Camera(pictures, trace), is_live=True, sinks=[emotions], pin_factory=pins
    ) as app:
        remote = Remote(broker.port, f"{config.mqtt.topic_prefix}/{config.device.id}", trace)
        scene = Scene(app, pins, broker, remote, trace)
        scene.expressions()
        seen = list(emotions.seen)
        scene.pause()
        closed_ms, is_refused = scene.privacy()
        scene.broken_camera()
        scene.broken_broker()
        scene.identify()
        trace.step("stop")
        remote.close()
    trace.step("   all is closed")
    return {"events": seen, "switch_to_closed_ms": round(closed_ms, 1), "resume_refused": is_refused}


def report(trace: Trace, told: list[Signal]) -> None:
    """Print steps, camera and LEDs in order of time."""
    lines = [(time_s, f"== {what}" if not what.startswith(" ") else what) for time_s, what in trace.steps]
    words = {
        "camera": ("closed", "open"), "capture": ("dark", "LIT"), "privacy": ("off", "ON"), "button": ("up", "DOWN"),
    }  # fmt: skip
    for change in trace.changes:
        if change.lane in words:
            lines.append((change.time_s, f"   {change.lane:8} {words[change.lane][change.is_on]}"))
    lines += [(signal.start_s, f"   {signal.led:8} {signal.words}") for signal in told]
    for time_s, line in sorted(lines, key=lambda row: row[0]):
        print(f"{time_s:8.3f} s {line}")


def judge(trace: Trace, told: list[Signal], measured: dict[str, Any]) -> dict[str, Any]:
    """Compare what the pins told with what happened."""
    lit = [change for change in trace.changes if change.lane in ("capture", "camera")]
    order = [f"{change.lane} {'on' if change.is_on else 'off'}" for change in lit]
    cycle = ["capture on", "camera on", "camera off", "capture off"]
    leads_ms = [1000 * (b.time_s - a.time_s) for a, b in pairwise(lit) if a.lane != b.lane]
    emotions = [signal.meaning for signal in told if signal.led == "event" and signal.meaning in SIGNALS]
    faults = {signal.meaning for signal in told if signal.led == "fault"} - {CUT_SHORT}
    verdict = {
        "frames": trace.frames,
        "frames_in_the_dark": trace.frames_in_the_dark,
        "openings": order.count("camera on"),
        "led_encloses_camera": order == cycle * (len(order) // 4) and len(order) % 4 == 0,
        "least_led_ahead_ms": round(min(leads_ms), 3),
        "emotions_told": emotions,
        "emotions_seen": measured["events"],
        "faults_told": sorted(faults),
        **{name: measured[name] for name in ("switch_to_closed_ms", "resume_refused")},
    }
    verdict["ok"] = (
        trace.frames > 0 and trace.frames_in_the_dark == 0 and verdict["led_encloses_camera"]
        and emotions == measured["events"] and set(EMOTIONS) <= set(emotions)
        and faults == {"camera", "broker"} and measured["resume_refused"]
    )  # fmt: skip
    return verdict


def main() -> int:
    """Play the scene, print it, and say whether the pins told the truth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it too: SVG or PNG")
    options = parser.parse_args()
    if MOSQUITTO is None:
        print("mosquitto: is not installed (Debian: apt install mosquitto)", file=sys.stderr)
        return 1
    source = SyntheticSource(
        load_portrait(), portrait_landmarks(), rate_hz=RATE_HZ, size=Camera.size, seconds=SECONDS, seed=SEED,
        script=SCRIPT, face_px=120.0,
    )  # fmt: skip
    pictures = [frame.luma.copy() for frame in source.frames()]
    with tempfile.TemporaryDirectory() as folder, Broker(Path(folder)) as broker:
        config = load(
            None,
            ["device.id=trace", "mqtt.host=127.0.0.1", f"mqtt.port={broker.port}", "camera.source=synthetic",
             # A busy machine is to see every expression too, later.
             f"camera.rate_hz={RATE_HZ}", "camera.queue_frames=1000",
             f"switches.privacy_pin={PRIVACY_PIN}", f"switches.identify_pin={IDENTIFY_PIN}"],
        )  # fmt: skip
        trace = Trace()
        measured = play(config, pictures, broker, trace)
    told = signals(trace.changes, config.leds.pulse_ms)
    report(trace, told)
    if options.picture is not None:
        from tools.pins_picture import draw

        draw(trace.changes, trace.steps, told, options.picture)
        print(f"picture: {options.picture}")
    verdict = judge(trace, told, measured)
    print(json.dumps(verdict))
    return 0 if verdict["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
