"""`python -m tests.benchmarks`, which `maskloop bench` runs: everything that has to be fast, as ratios."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from .harness.case import Budget
from .harness.machine import describe_machine
from .harness.report import report_json, report_rows
from .harness.running import all_cases, chosen, run_cases


def main() -> int:
    """Run the chosen cases; return 0, or 1 where one failed or its results differ."""
    parser = argparse.ArgumentParser(prog="maskloop bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="this case; may be repeated"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--seconds", type=float, default=10.0, help="of rounds for each variant (default 10)")
    parser.add_argument(
        "--requests", type=int, default=Budget.requests, help="mutated ones of hostile, at most (100000)"
    )
    parser.add_argument(
        "--minutes", type=float, default=Budget.minutes, help="for these requests, at most (10)"
    )
    parser.add_argument("--quick", action="store_true", help="the smallest variants, to see that all runs")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a case has started is then ended, too
    try:
        cases = chosen(all_cases(), options.only)
    except ValueError as exc:
        parser.error(str(exc))
    if options.list:
        for case in cases:
            print(f"{case.name:14} {case.summary}")
        return 0
    machine = describe_machine()
    budget = Budget(
        seconds=options.seconds, quick=options.quick, requests=options.requests, minutes=options.minutes
    )
    results, skipped, failed = run_cases(cases, budget)
    if options.json is not None:
        text = json.dumps(report_json(results, machine, skipped) | {"failed": failed}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    print_table(report_rows(results))
    for name, text in {**skipped, **failed}.items():
        print(f"{'failed' if name in failed else 'skipped'}: {name}: {text}", file=sys.stderr)
    return 1 if failed else 0


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print the lines: a table on a terminal, Markdown elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*rows[0])
        for row in rows[1:]:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


if __name__ == "__main__":
    # Two cores that spin for each other are slower than one; set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    sys.exit(main())
