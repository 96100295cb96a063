"""Runs `microedge run` on the virtual camera with a real broker, at falling rates until no frame is dropped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

TOPIC = "microedge/vm/health"
PORT = 18830
START_S = 240.0
"""Importing everything and loading the models takes half a minute in emulation."""


def main() -> None:
    """Arguments: rates in Hz, seconds at each."""
    rates, seconds = [float(word) for word in sys.argv[1].split(",")], float(sys.argv[2])
    Path("/tmp/broker.conf").write_text(f"listener {PORT} 127.0.0.1\nallow_anonymous true\nuser root\n")
    with subprocess.Popen(["mosquitto", "-c", "/tmp/broker.conf"], stderr=subprocess.DEVNULL) as broker:
        found = {}
        for rate_hz in rates:
            found[f"{rate_hz:g} Hz"] = last = trial(rate_hz, seconds)
            print(f"run at {rate_hz:g} Hz", json.dumps(last), flush=True)
            if last["frames_dropped"] == 0 and last["frames"]:
                break
        broker.terminate()
    print("RESULT", json.dumps({"run": found}))


def trial(rate_hz: float, seconds: float) -> dict[str, Any]:
    """Start, wait for the first frames, let it work, stop it; give what it said of itself last."""
    heard: list[dict[str, Any]] = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: client.subscribe(TOPIC)
    client.on_message = lambda _client, _data, message: heard.append(json.loads(message.payload))
    client.connect("127.0.0.1", PORT)
    client.loop_start()
    settings = (
        f"camera.rate_hz={rate_hz:g}", f"mqtt.port={PORT}", "device.id=vm", "leds.enabled=false",
        "outbox.folder=/tmp/state",
    )  # fmt: skip
    command = [sys.executable, "/payload/guest/virtual_microedge.py", "run"]
    environment = {**os.environ, "PACE_HZ": f"{rate_hz:g}", "GPIOZERO_PIN_FACTORY": "mock"}
    service = subprocess.Popen(
        [*command, *(word for each in settings for word in ("--set", each))], env=environment
    )
    begun_s = time.monotonic()
    while not any(health.get("face") for health in heard):
        if service.poll() is not None or time.monotonic() - begun_s > START_S:
            break
        time.sleep(0.2)
    ready_s = time.monotonic() - begun_s
    if service.poll() is None:
        time.sleep(seconds)
        service.send_signal(signal.SIGTERM)
    code = service.wait(60)
    client.disconnect()
    client.loop_stop()
    last = heard[-1] if heard else {}
    return {
        "exit_code": code,
        "face_found": any(health.get("face") for health in heard),
        "face_after_s": round(ready_s, 1),
        "frames": last.get("frames", 0),
        "frames_dropped": last.get("frames_dropped"),
        "rate_hz": next(
            (health["frame_rate_hz"] for health in reversed(heard) if health.get("frame_rate_hz")), None
        ),
        "engine": last.get("engine"),
        "stage_p50_ms": {name: spread.get("p50") for name, spread in (last.get("stage_ms") or {}).items()},
    }


main()
