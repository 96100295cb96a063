"""The command `microedge`: its arguments and its exit code. 0 done, 1 failed, 2 wrong usage or configuration."""

import argparse
import importlib
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edge import __version__
from edge.doctor import AREAS
from edge.errors import ConfigError, EdgeError

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and give its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        # Only the module of the command that was asked for: `config` must not load a vision library.
        command = importlib.import_module(f"edge.commands.{arguments.command}")
        return int(command.main(arguments))
    except ConfigError as error:
        return _complain(error, 2)
    except EdgeError as error:
        return _complain(error, 1)
    except BrokenPipeError:
        # The reader of our output has left (`| head`). Nothing more can be said there, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 1
    except Exception as error:
        log.debug("internal error", exc_info=True)
        return _complain(
            f"internal error: {type(error).__name__}: {error}; "
            "please report it, with the output of the same command and --set log.level=debug",
            1,
        )


def _complain(error: Exception | str, code: int) -> int:
    for line in str(error).splitlines() or [type(error).__name__]:
        print(f"microedge: {line}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="microedge", description="Spots micro-expressions and publishes them over MQTT."
    )
    parser.add_argument("--version", action="version", version=f"microedge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = _command(
        commands, "run", "Watch the camera and publish events until stopped; what the service does."
    )
    run.add_argument(
        "--json", action="store_true", help="also write each event to standard output, as JSON lines"
    )

    replay = _command(
        commands, "replay", "Run a recording through the same path and summarise what was found."
    )
    replay.add_argument("video", type=Path, metavar="VIDEO", help="any file that FFmpeg reads")
    replay.add_argument("--out", metavar="FILE", help="write events as JSON lines; - is standard output")
    replay.add_argument(
        "--journal", type=Path, metavar="FILE",
        help="write events, refusals with their reasons and time that could not be assessed, as JSON lines in order "
        "of time",
    )  # fmt: skip
    replay.add_argument(
        "--publish", action="store_true", help="publish events over MQTT, as <device.id>-replay"
    )
    replay.add_argument(
        "--start", type=_from_zero, default=0.0, metavar="S", help="skip to this time, seconds"
    )
    replay.add_argument("--seconds", type=_above_zero, metavar="S", help="stop after so much of the video")
    replay.add_argument("--quiet", action="store_true", help="no progress bar and no summary")

    demo = _command(
        commands, "demo", "Show everything on this computer: a portrait that moves, a broker, LEDs."
    )
    demo.add_argument(
        "--seconds", type=_above_zero, default=60.0, metavar="N", help="end after so much media time (60)"
    )
    demo.add_argument("--no-browser", action="store_true", help="open nothing (there is no dashboard yet)")
    demo.add_argument("--no-tty", action="store_true", help="plain lines instead of a live view")
    demo.add_argument("--photo", type=Path, metavar="FILE", help="animate this photo of one frontal face")
    demo.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another number, another course of events (0)"
    )
    demo.add_argument("--rate", type=_above_zero, default=200.0, metavar="HZ", help="frames per second (200)")

    bench = _command(
        commands, "bench", "Measure what the path costs here, beside a yardstick in the same run."
    )
    bench.add_argument(
        "video", type=Path, nargs="?", metavar="VIDEO", help="a recording; without one a portrait moves"
    )
    bench.add_argument(
        "--seconds",
        type=_above_zero,
        default=10.0,
        metavar="S",
        help="length of the run at the camera's pace (10)",
    )
    bench.add_argument(
        "--rate",
        type=_above_zero,
        default=200.0,
        metavar="HZ",
        help="the camera's pace (200); a recording has its own",
    )
    bench.add_argument(
        "--repeats", type=_count, default=15, metavar="N", help="blocks of frames and of the yardstick (15)"
    )
    bench.add_argument(
        "--peer", action="store_true", help="also MediaPipe FaceMesh on the same frames, if it is installed"
    )
    bench.add_argument("--json", action="store_true", help="one JSON object instead of tables")

    events = _command(
        commands, "events", "Show, follow or export what this device has seen and kept; the service may run."
    )
    events.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where events.db lies, instead of outbox.folder"
    )
    events.add_argument(
        "--last", type=_events, metavar="N", help="only the newest N (20 in a table, else all)"
    )
    when = "a time (2026-11-23T10:15, with Z or +01:00 or as the clock here says) or an age (45m, 2h, 3d)"
    events.add_argument("--since", default="", metavar="WHEN", help=f"from then on: {when}")
    events.add_argument("--until", default="", metavar="WHEN", help="before then, likewise")
    events.add_argument(
        "--emotion", default="", metavar="WORD", help="only these; movement: those without an emotion"
    )
    events.add_argument("--session", default="", metavar="NAME", help="only those of this session")
    events.add_argument(
        "--follow", action="store_true", help="go on with each event as it is kept, until Ctrl-C"
    )
    events.add_argument("--utc", action="store_true", help="show and read times in UTC, not in local time")
    form = events.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="JSON lines as they are published, no table")
    form.add_argument("--csv", default="", metavar="FILE", help="a flat table; - is standard output")
    form.add_argument(
        "--parquet", default="", metavar="FILE", help="a typed table (needs microedge[parquet])"
    )

    doctor = _command(
        commands, "doctor", "Examine this machine: what works, what does not, and what to do about it."
    )
    doctor.add_argument(
        "--only", action="append", default=[], choices=AREAS, metavar="AREA",
        help=f"only this area, may be repeated: {', '.join(AREAS)}",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="one JSON object, microedge.doctor/1")

    fault = _command(
        commands,
        "fault",
        "Blink the fault LED until stopped; what systemd does while the service has failed.",
    )
    fault.add_argument(
        "--code", type=int, choices=range(1, 8), default=0, metavar="N",
        help="number of blinks: 1 other, 2 camera, 3 models, 4 broker, 5 accelerator, 6 disk, 7 configuration "
        "(by how the service ended)",
    )  # fmt: skip

    config = _command(commands, "config", "Check, show or explain the configuration.")
    config.add_argument(
        "action", choices=("show", "check", "reference", "example"), metavar="ACTION",
        help="show: what is in effect; check: every mistake at once; reference: a table of all keys; "
        "example: a commented file with the defaults",
    )  # fmt: skip
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, about: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=about, description=about)
    command.add_argument("--config", type=Path, metavar="FILE", help="TOML; see `microedge config example`")
    command.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help="override a configuration key (section.key=value) for this call; may be repeated",
    )  # fmt: skip
    return command


def _from_zero(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"{text}: must be 1..10000")
    return value


def _events(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
