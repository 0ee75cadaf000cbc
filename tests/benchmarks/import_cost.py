"""The cost of importing the batcher, as a ratio to importing pydantic, in one run on one machine.

    python tests/benchmarks/import_cost.py [--runs 15]

Each import runs in a fresh interpreter, the two of them in turn, so that load on the machine hits both. The median of
the CPU seconds of the import alone is compared, without what the interpreter itself takes. Exits with 1 when the
batcher costs twice an import of pydantic or more.
"""

# ruff: noqa: T201 - a script that prints its findings

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

PROGRAM = """
import sys, time
before = set(sys.modules)
start = time.process_time()
{statement}
seconds = time.process_time() - start
print(seconds, len(set(sys.modules) - before))
"""
STATEMENTS = {
    "reconciler.StatusBatcher": "from reconciler import StatusBatcher",
    "pydantic.BaseModel": "from pydantic import BaseModel",
}
LIMIT = 2.0


def measured(statement: str) -> tuple[float, int]:
    """Return CPU seconds and number of modules of one import in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(statement=statement)], check=True, capture_output=True, text=True
    )
    seconds, modules = done.stdout.split()
    return float(seconds), int(modules)


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description="Compare an import of the batcher with one of pydantic.")
    parser.add_argument("--runs", type=int, default=15, help="how often each is imported (default 15)")
    runs = parser.parse_args().runs
    for statement in STATEMENTS.values():  # the first import writes the compiled files
        measured(statement)
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in STATEMENTS}
    for _ in range(runs):
        for name, statement in STATEMENTS.items():
            found[name].append(measured(statement))
    medians = {name: statistics.median(seconds for seconds, _ in runs) for name, runs in found.items()}
    for name, seconds in medians.items():
        print(f"{name:26} {seconds * 1000:7.1f} ms CPU, {found[name][0][1]:4} modules")
    ours, theirs = medians.values()
    print(f"ratio {ours / theirs:.2f} (less than {LIMIT} is the promise)")
    return 0 if ours / theirs < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
