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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from edge.errors import EdgeError
from tools.evaluate import dataset, rendered, report
from tools.evaluate.figures import Figures, figures
from tools.evaluate.loso import Chosen, loso
from tools.evaluate.matching import Rules
from tools.evaluate.records import Recording, Run, load
from tools.evaluate.running import Work, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or load, score and report; give the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.worst and not options.plots:
        parser.error("--worst draws pictures: say where with --plots DIR")
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
    return _report(options, header, recordings)


def _report(options: argparse.Namespace, header: dict[str, Any], recordings: list[Recording]) -> int:
    work = Work.of(header)
    if work.kind == "dataset" and not any(recording.truth for recording in recordings):
        print("nothing is annotated in these recordings: there is nothing to score")
        return 0
    if options.only_annotated:
        recordings = [r for r in recordings if any(truth.kind == "micro" for truth in r.truth)]
    rules = _rules(options, work)
    # Into a file nothing is wrapped.
    console = Console(width=None if sys.stdout.isatty() else 1000, highlight=False)
    if options.list:
        print("\n".join(report.listing(recordings, rules)))
    of = {name: figures(part, rules) for name, part in report.columns(recordings).items()}
    chosen: dict[str, list[Chosen]] = {}
    if options.loso:
        left_out = _left_out(recordings, rules, work)
        of |= {name: part for name, (part, _) in left_out.items()}
        chosen = {name: choices for name, (_, choices) in left_out.items()}
        for name, choices in chosen.items():
            console.print(report.choices(name, choices))
    report.show(console, of)
    if options.thresholds:
        console.print(report.thresholds(of))
    if options.json:
        shown = {
            "run": header,
            "figures": {name: part.as_json() for name, part in of.items()},
            "chosen": {name: [asdict(one) for one in choices] for name, choices in chosen.items()},
        }
        options.json.write_text(json.dumps(shown, indent=1) + "\n")
    if options.plots:
        # Here, because matplotlib takes longer to import than a saved run takes to score.
        from tools.evaluate import plots, worst

        written = plots.write(of, options.plots)
        if options.worst:
            written += worst.plot(work, worst.choose(recordings, rules, options.worst), options.plots)
        print("\n".join(str(path) for path in written))
    return 0


def _left_out(
    recordings: list[Recording], rules: Rules, work: Work
) -> dict[str, tuple[Figures, list[Chosen]]]:
    """Give a further column for each of the device's: every person with what the others choose."""
    result = {}
    for name, part in report.columns(recordings).items():
        if part[0].spotter == "device":
            answered, chosen = loso(part, rules, work.config)
            result[f"{name}, left out"] = figures(answered, rules), chosen
    return result


def _recordings(options: argparse.Namespace) -> tuple[dict[str, Any], list[Recording]]:
    if options.command == "score":
        return load(options.run)
    if options.command == "dataset":
        held = dataset.DatasetSet(
            options.layout, options.folder, options.sheet, skip_bad_rows=options.skip_bad_rows
        )
        settings = (f"event.max_duration_ms={dataset.LONGEST_MS}", *options.set)
        names, work = held.names(), Work("dataset", held.header(), settings, options.compare)
    else:
        plan = rendered.RenderedSet(rendered.plan_of(options))
        names = plan.names(options.clips, options.rate)
        work = Work("rendered", plan.header(), tuple(options.set), options.command == "compare")
    header = work.as_header()
    recordings = run(work, names, Run(options.save, header), options.jobs)
    if options.command == "dataset" and options.submission:
        held.submit(options.submission, recordings, options.form)
        print(f"answers written to {options.submission}")
    return header, recordings


def _rules(options: argparse.Namespace, work: Work) -> Rules:
    """Count what the device is set to find; of a data set everything, by frames, as its organisers do."""
    event = work.config.event
    is_dataset = work.kind == "dataset"
    return Rules(
        (event.min_duration_ms / 1000, event.max_duration_ms / 1000),
        is_strict=options.strict or (is_dataset and not options.lenient),
        counts_frames=is_dataset,
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
    command = commands.add_parser("dataset", help="a public data set")
    dataset.add_arguments(command)
    command.add_argument("--compare", action="store_true", help="with the classic spotter")
    _add_running(command)
    _add_scoring(command)
    command = commands.add_parser("score", help="a saved run")
    command.add_argument("run", type=Path, help="file of an earlier --save")
    command.add_argument("--lenient", action="store_true", help="as for dataset")
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
    command.add_argument(
        "--only-annotated",
        action="store_true",
        help="pass over recordings without any micro-expression, as most published figures do",
    )
    command.add_argument("--list", action="store_true", help="name every miss and every false alarm")
    command.add_argument("--thresholds", action="store_true", help="show what other thresholds would bring")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    command.add_argument("--plots", type=Path, metavar="DIR", help="draw reliability, recall and confusion")
    command.add_argument(
        "--worst", type=int, default=0, metavar="N", help="draw the N worst misses and false alarms too"
    )
    command.add_argument(
        "--loso", action="store_true", help="also choose threshold and temperature on the other people"
    )


if __name__ == "__main__":
    sys.exit(main())
