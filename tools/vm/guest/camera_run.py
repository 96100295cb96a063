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

PORT = 18830
COUNTS = Path("/tmp/counts.json")
SPARING = ("face.landmark_period_ms=500", "spot.hop_ms=60")
"""An inference takes as long there as fifty here."""
START_S = 120.0
"""Importing everything and loading the models takes half a minute in emulation."""


def main() -> None:
    """Arguments: rates in Hz, seconds at each."""
    rates, seconds = [float(word) for word in sys.argv[1].split(",")], float(sys.argv[2])
    Path("/tmp/broker.conf").write_text(f"listener {PORT} 127.0.0.1\nallow_anonymous true\nuser root\n")
    broker = subprocess.Popen(["mosquitto", "-c", "/tmp/broker.conf"], stderr=subprocess.DEVNULL)
    try:
        found = {}
        for rate_hz in rates:
            found[f"{rate_hz:g} Hz"] = last = trial(rate_hz, seconds)
            print(f"run at {rate_hz:g} Hz", json.dumps(last), flush=True)
            if last["dropped_by_us"] == 0 and last["frames"]:
                break
    finally:
        broker.kill()
    print("RESULT", json.dumps({"run": found}))


def trial(rate_hz: float, seconds: float) -> dict[str, Any]:
    """Start, wait for the first frames, let it work, stop it; give what it said of itself last."""
    # A name of its own for each: health is retained, and must not be taken for that of the next.
    device = f"vm-{rate_hz:g}"
    heard: list[dict[str, Any]] = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: client.subscribe(f"microedge/{device}/health")
    client.on_message = lambda _client, _data, message: heard.append(json.loads(message.payload))
    while True:
        try:
            client.connect("127.0.0.1", PORT)
            break
        except ConnectionRefusedError:
            time.sleep(0.2)
    client.loop_start()
    settings = (
        # 10 is the least that can be asked for; a sensor may be slower than asked.
        f"camera.rate_hz={max(rate_hz, 10):g}", f"mqtt.port={PORT}", f"device.id={device}",
        "outbox.folder=/tmp/state", *SPARING,
    )  # fmt: skip
    command = [sys.executable, "/payload/guest/virtual_microedge.py", "run"]
    environment = {
        **os.environ,
        "PACE_HZ": f"{rate_hz:g}",
        "COUNTS": str(COUNTS),
        "GPIOZERO_PIN_FACTORY": "mock",
    }
    service = subprocess.Popen(
        [*command, *(word for each in settings for word in ("--set", each))], env=environment
    )
    begun_s = time.monotonic()
    while not any(health.get("face") for health in heard):
        if service.poll() is not None or time.monotonic() - begun_s > START_S:
            print("no face:", heard[-1:], flush=True)
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
    sensor = json.loads(COUNTS.read_text()) if COUNTS.exists() else {"completed": 0, "missing": 0}
    return {
        "exit_code": code,
        "face_found": any(health.get("face") for health in heard),
        "face_after_s": round(ready_s, 1),
        "frames": last.get("frames", 0),
        "frames_dropped": last.get("frames_dropped"),
        "completed_by_libcamera": sensor["completed"],
        "missing_at_the_sensor": sensor["missing"],
        "dropped_by_us": max(last.get("frames_dropped", 0) - sensor["missing"], 0),
        "rate_hz": next(
            (health["frame_rate_hz"] for health in reversed(heard) if health.get("frame_rate_hz")), None
        ),
        "engine": last.get("engine"),
        "stage_p50_ms": {name: spread.get("p50") for name, spread in (last.get("stage_ms") or {}).items()},
    }


main()
