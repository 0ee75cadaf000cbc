"""The test suites of other projects on both servers: ``python -m tests.peers``, or with the names of suites.

Prints a table, and the cases that pass on the real server only. Exits with 1 if one of them is not in
``exceptions.json``, which gives the reason for each, or if a suite could not be run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.servers import SERVERS, serve
from tests.peers.suites import Cases, NotAvailable, Suite, suites

_HERE = Path(__file__).parent
TABLE = _HERE.parents[1] / "docs" / "suites.txt"
_HEAD = "| suite | of | embedded server | real server | fails on the embedded server only |\n|---|---|---|---|---|\n"


@dataclass
class Result:
    """The outcome of a suite.

    Attributes:
        suite: the suite.
        cases: the cases by server.
        reasons: why a case may fail on the embedded server, by name.
        problem: why the suite could not be run, or empty.
    """

    suite: Suite
    cases: dict[str, Cases] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def missing(self) -> list[str]:
        """Return the cases that pass on the real server only."""
        real, embedded = self.cases.get("real", {}), self.cases.get("embedded", {})
        return [name for name, state in real.items() if state == "passed" and embedded.get(name) != "passed"]

    @property
    def unexpected(self) -> list[str]:
        """Return the missing cases that have no reason."""
        return [name for name in self.missing if name not in self.reasons]

    @property
    def failed(self) -> bool:
        """Return whether the suite shows an unknown difference, or nothing."""
        return bool(self.problem or self.unexpected or "passed" not in self.cases["real"].values())

    def row(self) -> str:
        """Return the row of the table."""
        total = len({name for cases in self.cases.values() for name, state in cases.items() if state != "skipped"})
        counts = [sum(state == "passed" for state in self.cases[server].values()) for server in SERVERS]
        reasons = sorted({self.reasons.get(name, "a difference") for name in self.missing})
        shown = f"{len(self.missing)}: {'; '.join(reasons)}" if self.missing else ""
        name = self.suite.name
        return f"| {name} | {self.suite.project} | {counts[0]} of {total} | {counts[1]} of {total} | {shown} |"


def run(suite: Suite, reasons: Mapping[str, str], logs: Path) -> Result:
    """Run a suite on both servers; what only the real server passes runs on a fresh embedded one again."""
    try:
        play = suite.prepare()
    except NotAvailable as error:
        return Result(suite, problem=str(error))

    def cases(server: str, attempt: int = 1) -> Cases:
        found: Cases = {}
        for number, part in enumerate(suite.parts):
            directory = logs / suite.name / f"{server}-{attempt}-{number}"
            arguments = suite.arguments if server == "embedded" else suite.real
            with serve(server, directory, arguments) as kubeconfig:
                played = play(kubeconfig, part)
            found |= {name: state for name, state in played.items() if state != "skipped" or name not in found}
        return found

    with ThreadPoolExecutor(1 if suite.alone else len(SERVERS)) as threads:
        result = Result(suite, dict(zip(SERVERS, threads.map(cases, SERVERS), strict=True)), reasons)
    if result.unexpected:
        again = cases("embedded", attempt=2)
        result.cases["embedded"] |= {name: state for name, state in again.items() if state == "passed"}
    return result


def main() -> int:
    """Run the suites that are named, or all."""
    known = suites()
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--docs", action="store_true", help=f"write the rows of the table in docs/{TABLE.name}")
    parser.add_argument("--logs", type=Path, help="keep kubeconfigs and output in this directory, which is emptied")
    arguments = parser.parse_args()
    unknown = set(arguments.suites) - known.keys()
    if unknown:
        parser.error(f"unknown suite: {', '.join(sorted(unknown))}")
    exceptions = json.loads((_HERE / "exceptions.json").read_text())
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        logs = arguments.logs or Path(scratch)
        for name in arguments.suites or known:
            checkout = known[name].checkout
            if not arguments.suites and checkout and checkout not in os.environ:
                _say(f"{name}: skipped, because {checkout} is not set")
                continue
            shutil.rmtree(logs / name, ignore_errors=True)
            started = time.monotonic()
            result = run(known[name], exceptions.get(name, {}), logs)
            results.append(result)
            _say(f"{name}: {result.problem or f'run in {time.monotonic() - started:.0f} s'}")
    table = _HEAD + "\n".join(result.row() for result in results if not result.problem) + "\n"
    _say(f"\n{table}")
    for result in results:
        for case in result.unexpected:
            _say(f"FAILED on the embedded server only: {result.suite.name}: {case}")
        for case in result.reasons.keys() - set(result.missing):
            _say(f"in exceptions.json, but no difference: {result.suite.name}: {case}")
    if arguments.docs:
        write_docs(results)
    failed = sum(result.failed for result in results)
    _say(f"{len(results) - failed} passed, {failed} failed")
    return bool(failed)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def write_docs(results: Sequence[Result]) -> None:
    """Write the rows of suites into the table of the docs, which keeps those of other suites."""
    rows = {row.split("|")[1].strip(): row for row in TABLE.read_text().splitlines()[2:]}
    rows |= {result.suite.name: result.row() for result in results if not result.problem}
    TABLE.write_text(_HEAD + "".join(f"{rows[name]}\n" for name in suites() if name in rows))


if __name__ == "__main__":
    sys.exit(main())
