"""Fact retrieval: the manual template and found prompts, P@1 and MRR, one row a relation.

    python examples/facts.py ../shared/data/facts --model bundled:masked --relations P17 P30
    python examples/facts.py ../shared/data/facts --model bert-base-cased --tokens 5 --budget 20000 \
        --strategy random_search autoprompt gradient --run-dir runs/facts

FOLDER holds a folder for each relation (``P17/train.jsonl``, ``dev.jsonl``, ``test.jsonl``, ``meta.json`` with the template
``[X] is located in [Y] .``) or LAMA's own files (``P17.jsonl``, ``relations.jsonl``). The budget is for each relation and
strategy. With ``--run-dir`` stopping loses nothing: the same command goes on, and the table is kept there as Markdown and
JSON. The default limits are for a first look; published figures are on whole test sets.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import autoprompt
from autoprompt.relations import (
    FEWEST,
    Limits,
    RelationRow,
    RelationTable,
    load_relations,
    optimize_relations,
)


def between(n: int) -> autoprompt.SearchSpace:
    """AutoPrompt's template for facts (Shin et al. 2020, section 5.1): n tokens between subject and object."""
    return autoprompt.SearchSpace.from_dict(
        {
            "format": "autoprompt-space/1",
            "title": f"{n} tokens between subject and object",
            "fields": ["subject"],
            "template": "{{ subject }} [[ trigger ]] {{ answer }}.",
            "slots": {"trigger": {"tokens": {"n": n}}},
        }
    )


def show(row: RelationRow) -> None:
    """One line of progress."""
    found = f"P@1 {100 * row.manual[0]:.1f} -> {100 * row.found[0]:.1f}" if row.n else " ".join(row.notes)
    print(f"{row.relation:8} {row.strategy:16} {row.status:10} {found}", file=sys.stderr, flush=True)


def search(args: argparse.Namespace) -> RelationTable:
    """Every strategy on every relation."""
    tasks = load_relations(args.folder, names=args.relations)
    model = autoprompt.load_model(args.model)
    limits: Limits = {
        role: n
        for role, n in (("train", args.limit_train), ("select", args.limit_select), ("test", args.limit_test))
        if n
    }
    space: str | autoprompt.SearchSpace | None = between(args.tokens) if args.tokens else args.space
    table = RelationTable(())
    for strategy in dict.fromkeys(args.strategy):
        table += optimize_relations(
            tasks,
            model,
            args.budget,
            strategy=strategy,
            space=space,
            seed=args.seed,
            run_dir=args.run_dir / strategy if args.run_dir else None,
            limits=limits,
            fewest=args.fewest,
            on_relation=None if args.quiet else show,
        )
    return table


def arguments() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the relations")
    parser.add_argument(
        "--model", default="bundled:masked", help="a Hugging Face id or folder, bundled:masked, ..."
    )
    parser.add_argument("--relations", nargs="+", help="their names (default: all in the folder)")
    parser.add_argument(
        "--budget", default="2000", help='for each relation and strategy: 2000 (calls), "10 min", ...'
    )
    parser.add_argument(
        "--strategy", nargs="+", default=["random_search"], help="one or several, for comparison"
    )
    slots = parser.add_mutually_exclusive_group()
    slots.add_argument("--tokens", type=int, help="search this many tokens between subject and object")
    slots.add_argument("--space", help="a search space's name or file (default: the manual template alone)")
    parser.add_argument("--limit-train", type=int, default=200, help="most facts of train; 0: all")
    parser.add_argument("--limit-select", type=int, default=100, help="most facts of select; 0: all")
    parser.add_argument("--limit-test", type=int, default=200, help="most facts of test; 0: all")
    parser.add_argument(
        "--fewest", type=int, default=FEWEST, help="relations with fewer in a split are skipped"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path, help="keeps all runs, so that they can be resumed")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def main() -> int:
    """Run and print; 1 where nothing could be measured or the call is wrong."""
    args = arguments().parse_args()
    try:
        table = search(args)
    except autoprompt.AutopromptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.run_dir is not None:
        args.run_dir.mkdir(parents=True, exist_ok=True)
        (args.run_dir / "table.md").write_text(table.markdown() + "\n", "utf-8")
        text = json.dumps(table.rows(), indent=2, ensure_ascii=False, allow_nan=False)
        (args.run_dir / "table.json").write_text(text + "\n", "utf-8")
    print(table.markdown() if args.markdown else table.text())
    return 0 if table.means() else 1


if __name__ == "__main__":
    sys.exit(main())
