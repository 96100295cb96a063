"""Measure the device: `python -m tools.evaluate rendered | compare | dataset | score`.

rendered   people that training never saw, rendered with planted micro-expressions and confusers
compare    the same, with the classic optical-flow spotter of the field beside the device on the same frames
dataset    a public data set that you hold a licence for, by the official rules
score      a saved run (--save), scored again without running anything

Spotting follows the rules of the micro-expression grand challenges (MEGC): overlap (IoU) of at least one half, one
to one, counts summed over the set before F1. Rendered sets count planted micro-expressions of the durations that
the device is set to (event.min_duration_ms, event.max_duration_ms); an answer on a longer one, and a miss in time
that the device declared not assessable, count neither way and are reported. --strict counts everything.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from edge.errors import EdgeError
from tools.evaluate import rendered, report
from tools.evaluate.figures import figures
from tools.evaluate.matching import Rules
from tools.evaluate.records import Recording, Run, load
from tools.evaluate.running import Work, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or load, score and report; give the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        header, recordings = _recordings(options)
    except (EdgeError, ValueError, FileNotFoundError) as error:
        print(f"tools.evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = f"; what is done is in {options.save}, the same call goes on" if options.save else ""
        print(f"\ninterrupted{kept}", file=sys.stderr)
        return 130
    if not recordings:
        print("tools.evaluate: no recordings to score", file=sys.stderr)
        return 2
    rules = _rules(options, header)
    if options.list:
        print("\n".join(report.listing(recordings, rules)))
    of = {name: figures(part, rules) for name, part in report.columns(recordings).items()}
    report.show(Console(width=None if sys.stdout.isatty() else 160), of)
    if options.json:
        shown = {name: part.as_json() for name, part in of.items()}
        options.json.write_text(json.dumps({"run": header, "figures": shown}, indent=1) + "\n")
    return 0


def _recordings(options: argparse.Namespace) -> tuple[dict[str, Any], list[Recording]]:
    if options.command == "score":
        return load(options.run)
    plan = rendered.RenderedSet(rendered.plan_of(options))
    names = plan.names(options.clips, options.rate)
    work = Work("rendered", plan.header(), tuple(options.set), options.command == "compare")
    header = work.as_header()
    return header, run(work, names, Run(options.save, header), options.jobs)


def _rules(options: argparse.Namespace, header: dict[str, Any]) -> Rules:
    event = Work.of(header).config.event
    return Rules(
        (event.min_duration_ms / 1000, event.max_duration_ms / 1000),
        is_strict=options.strict,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("rendered", "rendered people"),
        ("compare", "rendered people, with the classic spotter"),
    ):
        command = commands.add_parser(name, help=text)
        rendered.add_arguments(command)
        _add_running(command)
        _add_scoring(command)
    command = commands.add_parser("score", help="a saved run")
    command.add_argument("run", type=Path, help="file of an earlier --save")
    command.set_defaults(save=None)
    _add_scoring(command)
    return parser


def _add_running(command: argparse.ArgumentParser) -> None:
    command.add_argument("--jobs", type=int, default=1, help="processes")
    command.add_argument("--set", action="append", default=[], metavar="section.key=value")
    command.add_argument(
        "--save", type=Path, metavar="FILE", help="keep the run; an interrupted one goes on from there"
    )


def _add_scoring(command: argparse.ArgumentParser) -> None:
    command.add_argument("--strict", action="store_true", help="count everything, excuse nothing")
    command.add_argument("--list", action="store_true", help="name every miss and every false alarm")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all figures")


if __name__ == "__main__":
    sys.exit(main())
