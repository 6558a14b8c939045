"""``python -m tests.benchmarks A --families gpt2 bert --size small --threads 1 --repeats 5``"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests.benchmarks import (
    gradient,
    memory,
    nanogcg,
    planted_templates,
    racing,
    scaling,
    scoring,
    soft,
    triggers,
)
from tests.benchmarks.models import FAMILIES, KINDS, make_subject


def main() -> None:
    """Run one benchmark and print its table."""
    given = _parser().parse_args()
    given.run(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    commands = parser.add_subparsers(
        required=True, metavar="A|A1|B|C|memory|nanogcg|scaling|soft|triggers|templates|racing"
    )
    for name, text in (
        ("A", "64 prompts x 64 examples"),
        ("A1", "the same, all prompts before the example"),
        ("C", "200 templates with demonstrations x 64"),
    ):
        command = _common(commands.add_parser(name, help=text))
        command.add_argument(
            "--prompts", type=int, help="how many of them (default: about a minute a repeat)"
        )
        command.add_argument("--examples", type=int)
        command.add_argument("--columns", nargs="+", default=scoring.COLUMNS, choices=scoring.COLUMNS)
        command.set_defaults(run=_score, workload=name)
    command = _common(commands.add_parser("B", help="one gradient step, and its 128 candidates"))
    command.add_argument("--candidates", type=int, help="how many of the 128 (default: about a minute)")
    command.add_argument("--examples", type=int, default=32)
    command.add_argument("--orders", nargs="+", default=gradient.ORDERS, choices=gradient.ORDERS)
    command.set_defaults(run=_step)
    command = _common(
        commands.add_parser("memory", help="peak memory of A and C against the number of prompts")
    )
    command.add_argument("--workloads", nargs="+", default=["A", "C"], choices=["A", "B", "C"])
    command.add_argument("--prompts", type=int, nargs="+", default=[8, 16, 32, 64])
    command.add_argument("--examples", type=int, default=16)
    command.add_argument("--columns", nargs="+", default=["naive", "ours"], choices=scoring.COLUMNS)
    command.set_defaults(run=_memory)
    command = commands.add_parser("nanogcg", help="a GCG step against nanoGCG in its own environment")
    command.add_argument(
        "--nanogcg-python", type=Path, required=True, help="python of the environment that has it"
    )
    command.add_argument("--size", default="small")
    command.add_argument("--width", type=int, default=256, help="candidates a step")
    command.add_argument("--repeats", type=int, default=5)
    command.set_defaults(run=_nanogcg)
    command = commands.add_parser("scaling", help="seconds against prompts, examples, prefix and width")
    command.add_argument("--family", default="gpt2", choices=FAMILIES)
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder for the plot")
    command.set_defaults(run=_scaling)
    command = commands.add_parser("soft", help="training of soft rows against PEFT and the Trainer")
    soft.add_arguments(command)
    command.set_defaults(run=_soft)
    command = commands.add_parser("triggers", help="planted triggers: who finds them, after how many calls")
    triggers.add_arguments(command)
    command.set_defaults(run=_triggers)
    _add_search(commands.add_parser)
    return parser


def _add_search(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that measure how templates are searched; they need no speed."""
    command = add(
        "templates", help="planted template tasks: who reaches the best prompt, after how many calls"
    )
    planted_templates.add_arguments(command)
    command.set_defaults(run=_templates)
    command = add("racing", help="races on real score matrices: calls saved, good prompts lost")
    racing.add_arguments(command)
    command.set_defaults(run=_racing)


def _common(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    command.add_argument("--size", default="small", choices=["tiny", "mini", "small", "base"])
    command.add_argument("--threads", type=int, nargs="+", default=[1])
    command.add_argument("--repeats", type=int, default=5)
    return command


def _score(given: argparse.Namespace) -> None:
    default = scoring.PARTS[given.workload, given.size]
    prompts, examples = given.prompts or default[0], given.examples or default[1]
    rows = []
    for family in given.families:
        subject = make_subject(family, given.size)
        workload = scoring.MAKERS[given.workload](subject, prompts, examples)
        for threads in given.threads:
            rows.append(
                scoring.measure(
                    subject, workload, threads=threads, repeats=given.repeats, columns=given.columns
                )
            )
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print(scoring.report(given.workload, rows))


def _step(given: argparse.Namespace) -> None:
    rows = []
    for family in given.families:
        subject = make_subject(family, given.size)
        # in an encoder-only or encoder-decoder model the order changes nothing: all tokens read one another
        orders = given.orders if KINDS[subject.family] == "causal" else given.orders[:1]
        for order in orders:
            candidates = given.candidates or gradient.PARTS[given.size]
            for threads in given.threads:
                rows.append(
                    gradient.measure(
                        subject, order, candidates, given.examples, threads=threads, repeats=given.repeats
                    )
                )
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print(gradient.report(rows))


def _memory(given: argparse.Namespace) -> None:
    print(
        memory.report(
            given.workloads, given.families, given.size, given.prompts, given.examples, given.columns
        )
    )


def _nanogcg(given: argparse.Namespace) -> None:
    print(nanogcg.report(given.nanogcg_python, given.size, given.width, given.repeats))


def _soft(given: argparse.Namespace) -> None:
    print(soft.from_arguments(given))


def _triggers(given: argparse.Namespace) -> None:
    print(triggers.from_arguments(given))


def _templates(given: argparse.Namespace) -> None:
    print(planted_templates.from_arguments(given))


def _racing(given: argparse.Namespace) -> None:
    print(racing.from_arguments(given))


def _scaling(given: argparse.Namespace) -> None:
    print(scaling.report(given.family, given.repeats, given.out))


if __name__ == "__main__":
    main()
