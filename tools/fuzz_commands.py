"""Throw damaged commands at the device's command desk, and look at what it makes of them.

    python -m tools.fuzz_commands [--runs 1000000] [--seed 1]

Each run takes a command from a corpus of good and bad ones, damages it (flipped bits, splices, huge numbers, foreign
alphabets, halves of surrogate pairs, cut UTF-8, deep nesting, repeated keys, random fields) and hands it to
`CommandDesk.take`, which must never raise. What it accepts must be as command-1.json says; what it answers must be as
response-1.json says, bounded, on a topic that it may use. The last line is one JSON object; the exit code is 1 if
anything was wrong. The same seed makes the same runs.
"""

import argparse
import json
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator

from edge.out.mqtt.commands import (
    CORRELATION_LIMIT,
    MESSAGE_LIMIT,
    TOPIC_LIMIT,
    Answer,
    Command,
    CommandDesk,
    Received,
)
from edge.payload import encode, validate

DEVICE_ID, PREFIX = "lab-03", "fleet/microedge"
BASE = f"{PREFIX}/{DEVICE_ID}"
NOW_NS = 1_795_428_902_415_000_000
ANSWER_LIMIT = 700
"""Longest answer, bytes: what is said of an id (64 characters of 4 bytes), an error (300) and the rest."""
CHECKED_EVERY = 50
"""Each answer of a kind not seen before is held against its schema, and then every so many: that takes ten times as
long as all else. What the schema says is looked at for every answer nevertheless (`Fuzzer.look_at`)."""

NAMES = ("pause", "resume", "identify", "context", "wipe")
ODD_NAMES = (
    "",
    "reboot",
    "pause/",
    "Pause",
    "a" * 33,
    "a" * 60_000,
    "päuse",
    "x/pause",
    "../event",
    "\ud800",
    "$x",
)
TOPICS = (
    "dashboard/7/answers", f"{BASE}/response/pause", f"{BASE}/response/", f"{BASE}/event", f"{BASE}/response", PREFIX,
    f"{PREFIX}/other/event", f"{PREFIX}/other/response/x", "fleet.microedge.lab-03.event", "a/+/b", "a/#", "#",
    "$SYS/x", "$share/a/b", "x" * 256, "x" * 257, "é" * 129, "a\0b", "a\nb", "\ud83d", f"{BASE}x/event", "/",
)  # fmt: skip
GOOD = (
    b"", b"{}", b'{"id":"@"}', b'{"expires":"2026-11-23T10:15:03.000Z","id":"@"}', b'{"seconds":5}',
    b'{"schema":"microedge.command/1","seconds":1.5,"id":"@"}', b'{"session":"x-7","note":null,"tags":["a","b"]}',
    b'{"note":"\\u00e4\\ud83d\\ude00 \xf0\x9f\x98\x80","tags":[],"id":"@"}', b'{"confirm":"lab-03","id":"@"}',
    b' {\n"note" : "x",\t"session":""}\r\n', b'{"tags":["0","1","2","3","4","5","6","7","8","9"],"id":"@"}',
)  # fmt: skip
BAD = (
    b"null", b"[]", b'"pause"', b"0", b"{", b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"{}{}", b'{"id":"@","id":"@"}',
    b'{"seconds":NaN}', b'{"seconds":-Infinity}', b'{"seconds":1e999}', b'{"seconds":0}', b'{"seconds":"5"}',
    b'{"seconds":true}', b'{"id":""}', b'{"id":7}', b'{"id":null}', b'{"id":"a\\u0000b"}', b'{"note":"\\ud800"}',
    b'{"note":"\xed\xa0\x80"}', b'{"confirm":"lab-04"}', b'{"confirm":null}', b'{"expires":"2026-02-30T10:15:02.415Z"}',
    b'{"expires":"2026-11-23T10:15:02.415Z\\n"}', b'{"expires":"0000-01-01T00:00:00.000Z"}', b'{"expires":1795428902}',
    b'{"expires":"9999-12-31T23:59:59.999Z"}', b'{"expires":"2026-11-23T10:15:02.414Z","id":"@"}', b'{"tags":[""]}',
    b'{"tags":[["x"]]}', b'{"tags":{"0":"x"}}', b'{"note":{"a":[{}]}}', b'{"volume":11}', b'{"__proto__":{}}',
    b'{"session":"' + b"x" * 201 + b'"}', b'{"note":"' + b"y" * 8200 + b'"}', b'{"seconds":' + b"9" * 4301 + b"}",
)  # fmt: skip
SCRAPS = (
    b"[" * 2000, b'{"a":' * 500, b"9" * 400, b"-", b"1e308", b"1e-400", b"0x10", b"\\u0000", b"\\ud83d", b"\\udc00",
    b"\xc3", b"\xf0\x9f\x98", b"\xed\xb0\x80", b"\xc0\x80", b"\0", b"\x1b[31m", b"\xe2\x80\xa8", b"\xe2\x80\xae", b'"',
    b"\\", b",", b":", b"}", b"]", b"null", b"true", b"NaN", b'"id":"@",', b'"note":"x",', b'"tags":[],',
    b'"expires":null,', "日本語".encode(), "عربى".encode(), "Z̸͑a".encode(), "👩‍👩‍👧".encode(), b"%s%n", b"${x}",
)  # fmt: skip


def validator_of(name: str) -> Draft202012Validator:
    """Give a validator of the command `name`, from the schema in the package."""
    file = resources.files("edge") / "schemas" / "command-1.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    return Draft202012Validator(
        {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": f"#/$defs/{name}"}
    )


@cache
def _validators() -> dict[str, Draft202012Validator]:
    return {name: validator_of(name) for name in NAMES}


class Mutator:
    """Makes messages, the same ones from the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._made = 0
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip, self._flip, self._overwrite, self._insert_scrap, self._insert_scrap, self._cut, self._repeat,
            self._splice, self._splice, self._number,
        )  # fmt: skip

    def received(self) -> Received:
        """Give the next message."""
        draw = self._chance.random
        name = NAMES[int(draw() * len(NAMES))] if draw() < 0.97 else self._odd_name()
        topic = "" if draw() < 0.9 else self._topic()
        correlation = b"" if draw() < 0.9 else self._chance.randbytes(int(2 ** (draw() * 11)))
        return Received(name, self._payload(), draw() < 0.02, topic, correlation)

    def _payload(self) -> bytes:
        draw = self._chance.random
        kind = draw()
        if kind < 0.05:
            data = self._random_object()
        elif kind < 0.07:
            data = self._chance.randbytes(int(draw() * 64))
        else:
            data = self._pick(GOOD if kind < 0.8 else BAD)
        self._made += 1
        # Every other id is a new one; the rest come again and again.
        data = data.replace(b"@", b"%d" % (self._made if draw() < 0.5 else draw() * 400))
        if draw() < 0.25:
            return data
        buffer = bytearray(data)
        for _ in range(1 if draw() < 0.7 else 2 + int(draw() * 6)):
            self._ways[int(draw() * len(self._ways))](buffer)
        return bytes(buffer)

    def _pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self._chance.random() * len(choices))]

    def _place(self, buffer: bytearray) -> int:
        return int(self._chance.random() * (len(buffer) + 1))

    def _flip(self, buffer: bytearray) -> None:
        if buffer:
            buffer[self._place(buffer) - 1] ^= 1 << int(self._chance.random() * 8)

    def _overwrite(self, buffer: bytearray) -> None:
        if buffer:
            buffer[self._place(buffer) - 1] = int(self._chance.random() * 256)

    def _insert_scrap(self, buffer: bytearray) -> None:
        place = self._place(buffer)
        buffer[place:place] = self._pick(SCRAPS)

    def _cut(self, buffer: bytearray) -> None:
        place = self._place(buffer)
        del buffer[place : place + 1 + int(self._chance.random() * 12)]

    def _repeat(self, buffer: bytearray) -> None:
        place = self._place(buffer)
        part = buffer[place : place + 1 + int(self._chance.random() * 16)]
        buffer[place:place] = part * (1 + int(2 ** (self._chance.random() * 8)))

    def _splice(self, buffer: bytearray) -> None:
        other = self._pick(GOOD if self._chance.random() < 0.7 else BAD)
        buffer[self._place(buffer) :] = other[int(self._chance.random() * (len(other) + 1)) :]

    def _number(self, buffer: bytearray) -> None:
        digits = [place for place, byte in enumerate(buffer) if 48 <= byte <= 57]
        if digits:
            place = self._pick(digits)
            buffer[place : place + 1] = b"%d" % self._chance.getrandbits(int(self._chance.random() * 200) + 1)

    def _random_object(self) -> bytes:
        keys = (
            "schema",
            "id",
            "expires",
            "seconds",
            "session",
            "note",
            "tags",
            "confirm",
            "x",
            "",
            "\ud800",
            "é\n",
        )
        fields = {self._pick(keys): self._random_value(3) for _ in range(int(self._chance.random() * 5))}
        return json.dumps(fields, ensure_ascii=self._chance.random() < 0.8).encode(errors="surrogatepass")

    def _random_value(self, depth: int) -> Any:
        kind = int(self._chance.random() * (8 if depth else 6))
        if kind == 6:
            return [self._random_value(depth - 1) for _ in range(int(self._chance.random() * 13))]
        if kind == 7:
            return {
                str(number): self._random_value(depth - 1) for number in range(int(self._chance.random() * 4))
            }
        length = int(2 ** (self._chance.random() * 8))
        text = "".join(chr(int(2 ** (self._chance.random() * 16))) for _ in range(length))
        number = self._chance.uniform(-1, 70)
        return (None, True, int(number), number, text, "microedge.command/1")[kind]

    def _odd_name(self) -> str:
        return self._pick(ODD_NAMES) if self._chance.random() < 0.7 else self._random_text()

    def _topic(self) -> str:
        topic = self._pick(TOPICS)
        if self._chance.random() < 0.5:
            return str(topic)
        place = int(self._chance.random() * (len(topic) + 1))
        return f"{topic[:place]}{self._random_text()}{topic[place:]}"

    def _random_text(self) -> str:
        return "".join(
            chr(int(2 ** (self._chance.random() * 20))) for _ in range(int(self._chance.random() * 6))
        )


@dataclass(slots=True)
class Fuzzer:
    """Hands messages to a desk and keeps count of what became of them."""

    seed: int
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)
    """What went wrong, with what."""
    _seen: set[tuple[str, ...]] = field(default_factory=set)

    def run(self, runs: int) -> None:
        desk = CommandDesk(BASE, DEVICE_ID, clock_ns=lambda: NOW_NS, capacity=2)
        mutator = Mutator(self.seed)
        for number in range(runs):
            received = mutator.received()
            is_sample = number % CHECKED_EVERY == 0
            try:
                answer = desk.take(received)
                if answer is None:
                    self.accepted += 1
                else:
                    self.refused[answer.payload["error"]["code"]] += 1
                    self.look_at(answer, received, is_sample=is_sample)
                # Now and then they are left to wait, so that the desk fills up.
                while number % 64 > 20 and (command := desk.next()) is not None:
                    self.look_at_command(command)
                    failed = number % 2 == 0
                    answer = (
                        desk.failed(command, received.name)
                        if failed
                        else desk.done(command, {"changed": True})
                    )
                    self.look_at(answer, command.received, is_sample=is_sample)
            except Exception:
                self.crashes.append(f"{received!r}\n{traceback.format_exc()}")
        counts = desk.counts()
        if (counts.accepted, counts.refused) != (self.accepted, self.refused) and not self.crashes:
            self.crashes.append(f"the desk counts {counts}, not {self.accepted} and {dict(self.refused)}")

    def look_at(self, answer: Answer, received: Received, *, is_sample: bool) -> None:
        """Check an answer, raising AssertionError if anything is wrong with it."""
        payload, topic, correlation = answer.payload, answer.topic, answer.correlation
        size = len(encode(payload).encode())
        require(size <= ANSWER_LIMIT, f"the answer has {size} bytes")
        error = payload.get("error")
        is_whole = payload["ok"] == (error is None) == ("result" in payload)
        require(is_whole, f"result or error: {payload}")
        if error is not None:
            message = error["message"]
            is_plain = message.isascii() and message.isprintable()
            require(0 < len(message) <= MESSAGE_LIMIT and is_plain, f"the message {message!r}")
        require(correlation in (received.correlation, b""), f"the correlation data {correlation!r}")
        require(len(correlation) <= CORRELATION_LIMIT, f"{len(correlation)} bytes of correlation data")
        is_among_topics = f"{topic.replace('.', '/')}/".startswith((f"{PREFIX}/", "$"))
        is_allowed = topic.startswith(f"{BASE}/response/") or not is_among_topics
        require(is_allowed and "+" not in topic and "#" not in topic, f"the answer goes to {topic!r}")
        require(len(topic.encode()) <= TOPIC_LIMIT, f"the topic has {len(topic)} characters")
        kind = (payload["command"], error["code"] if error else "", "id" if "id" in payload else "")
        if is_sample or kind not in self._seen:
            self._seen.add(kind)
            validate(payload)

    def look_at_command(self, command: Command) -> None:
        """Check that what was accepted is what the schema allows, and that it can be kept and sent on."""
        fields = json.loads(command.received.payload or b"{}")
        if error := next(_validators()[command.name].iter_errors(fields), None):
            raise AssertionError(f"accepted against its schema: {error.message}")
        json.dumps(dict(command.arguments), ensure_ascii=False, allow_nan=False).encode()
        if command.name == "wipe":
            require(command.arguments["confirm"] == DEVICE_ID, "wiped another device")


def require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.fuzz_commands", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    began_s = time.monotonic()
    fuzzer = Fuzzer(options.seed)
    fuzzer.run(options.runs)
    for crash in fuzzer.crashes[:10]:
        print(crash, file=sys.stderr)
    outcome = {
        "runs": options.runs, "seed": options.seed, "accepted": fuzzer.accepted,
        "refused": dict(sorted(fuzzer.refused.items())), "crashes": len(fuzzer.crashes),
        "seconds": round(time.monotonic() - began_s, 1),
    }  # fmt: skip
    print(json.dumps(outcome))
    return 1 if fuzzer.crashes else 0


if __name__ == "__main__":
    sys.exit(main())
