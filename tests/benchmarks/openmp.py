"""What waiting OpenMP threads cost: a forward pass alone, and beside a second process that does the same.

`python -m tests.benchmarks.openmp --json FILE` on a quiet machine. libgomp reads its variables when it is
loaded, so each setting runs in a process of its own; settings take turns, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from .harness.case import Spread
from .harness.machine import describe_machine

__all__: list[str] = []

SETTINGS: dict[str, dict[str, str]] = {
    "as libgomp has it": {},
    "passive, never spins": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "spins 1,000 times": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"},
    "spins 10,000 times": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"},
    "spins 100,000 times": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "100000"},
}
SIZE_HW = (480, 640)
PASSES = 4  # timed ones of each process, after one that is not
TIMEOUT_S = 300.0


def run_passes(precision: str) -> None:
    """Print the milliseconds of each forward pass; the line "ready" first, then a line is awaited."""
    import torch

    from maskloop.malloc import keep_freed_memory
    from maskloop.segmentation.fast.forward import ForwardPlan

    from .cases.forward import random_inputs, random_model, run_ours

    keep_freed_memory()
    model = random_model("mask2former", "swin-t", torch.device("cpu"))
    inputs = random_inputs("mask2former", SIZE_HW, 1, torch.device("cpu"))
    plan = ForwardPlan(precision=precision)
    run_ours(model, inputs, plan)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(PASSES):
        begun = time.perf_counter()
        run_ours(model, inputs, plan)
        print(1000 * (time.perf_counter() - begun), flush=True)


def measure(variables: dict[str, str], precision: str, *, processes: int) -> list[float]:
    """Return the milliseconds of all passes of so many processes at once."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-m", __spec__.name, "--passes", precision]
    started = [
        subprocess.Popen(
            command, env=clean | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    for one in started:
        assert one.stdout is not None
        if one.stdout.readline().strip() != "ready":
            raise SystemExit(f"{' '.join(command)} did not start")
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    return [float(line) for one in started for line in one.communicate(timeout=TIMEOUT_S)[0].split()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--passes", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.passes:
        run_passes(arguments.passes)
        return
    machine = describe_machine()
    rows = []
    for precision in arguments.precision:
        for processes in (1, 2):
            found: dict[str, list[float]] = {name: [] for name in SETTINGS}
            for _ in range(arguments.rounds):
                for name, variables in SETTINGS.items():
                    found[name] += measure(variables, precision, processes=processes)
            for name, values in found.items():
                rows.append(
                    {
                        "precision": precision,
                        "processes": processes,
                        "setting": name,
                        "ms": asdict(Spread.of(values)),
                        "load_1min": round(os.getloadavg()[0], 2),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
