"""Benchmarks: ``python -m tests.benchmarks --help``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.benchmarks import server, works
from tests.benchmarks.plots import draw
from tests.benchmarks.processes import ROOT, Contender, python
from tests.benchmarks.programs import Programs, build, versions
from tests.benchmarks.report import (
    CEILING,
    CEILING_PATCH,
    CEILING_WATCH,
    GO,
    KOPF,
    OURS,
    OURS_NOT_ADAPTIVE,
    OURS_ONE_WORKER,
    OURS_PATCH,
    OURS_UVLOOP,
    RUST,
    markdown,
    summary,
)

DOCS = ROOT / "docs"
SUMMARY = "<!-- summary: python -m tests.benchmarks --publish -->", "<!-- end of summary -->"
WORKS = (
    "converge",
    "start",
    "start-text",
    "memory",
    "latency",
    "backlog",
    "neighbors",
    "steady",
    "queue",
    "decoding",
    "imports",
    "notify",
    "heartbeat",
)


@dataclass(frozen=True)
class Profile:
    """The size of each work.

    Attributes:
        converge: objects, in one series of runs each.
        start: objects in the cache.
        latency: objects, and how many are made a second.
        backlog: objects that wait, objects that are made meanwhile, and how many a second.
        steady: keys, seconds of the period, objects changed in the burst.
        queue: keys.
        notify: requests.
        heartbeat: objects, seconds of the resync period.
        repeats: repetitions of everything but `steady`.
        steady_repeats: repetitions of `steady`, which takes long.
        works: which works.
        contenders: which contenders.
    """

    converge: tuple[int, ...]
    start: tuple[int, ...]
    latency: tuple[int, float]
    backlog: tuple[int, int, float]
    steady: tuple[int, float, int]
    queue: tuple[int, ...]
    notify: int
    heartbeat: tuple[int, float]
    repeats: int
    steady_repeats: int
    works: str
    contenders: str


PROFILES = {
    "smoke": Profile(
        converge=(100,),
        start=(100, 200),
        latency=(40, 20.0),
        backlog=(300, 10, 20.0),
        steady=(50, 3.0, 20),
        queue=(1_000, 10_000),
        notify=20,
        heartbeat=(200, 2.0),
        repeats=1,
        steady_repeats=1,
        works=",".join(work for work in WORKS if work != "memory"),  # takes minutes for each contender
        contenders="ours,ours-uvloop,rust,go,kopf,bare,bare-watch",
    ),
    "quick": Profile(
        converge=(3_000,),
        start=(20_000, 100_000),
        latency=(500, 50.0),
        backlog=(5_000, 50, 10.0),
        steady=(3_333, 20.0, 1_000),  # 10,000 reconciles a minute
        queue=(1_000, 1_000_000),
        notify=1_000,
        heartbeat=(10_000, 10.0),
        repeats=3,
        steady_repeats=3,
        works="converge,start,memory,steady,latency,backlog,queue,decoding,imports,notify,heartbeat",
        contenders="ours,rust,go,bare,bare-watch",
    ),
    "full": Profile(
        converge=(3_000, 20_000),
        start=(20_000, 100_000),
        latency=(3_000, 50.0),
        backlog=(5_000, 50, 10.0),
        steady=(10_000, 60.0, 5_000),
        queue=(1_000, 10_000, 100_000, 1_000_000),
        notify=1_000,
        heartbeat=(10_000, 10.0),
        repeats=5,
        steady_repeats=3,
        works=",".join(WORKS),
        contenders="ours,ours-uvloop,ours-patch,ours-not-adaptive,rust,go,go-patch,go-no-predicate,go-unstructured,kopf,watch,bare,"
        "bare-patch,bare-watch,other-python",
    ),
}


def contenders(programs: Programs) -> dict[str, Contender]:
    """Return all contenders by the word that chooses them."""

    def go(name: str, *arguments: str) -> Contender:
        return Contender(name, (programs.go, *arguments))

    return {
        "ours": python("ours", OURS),
        "ours-uvloop": python("ours", OURS_UVLOOP, "--loop=uvloop"),
        "ours-patch": python("ours", OURS_PATCH, "--write=patch"),
        "ours-not-adaptive": python("ours", OURS_NOT_ADAPTIVE, "--adaptive=off"),
        "ours-one-worker": python("ours", OURS_ONE_WORKER, "--adaptive=1"),
        "other-python": python("ours", f"{OURS}, {programs.python_version}", interpreter=programs.python),
        "rust": Contender(RUST, (programs.rust,)),
        "go": go(GO),
        "go-patch": go(f"{GO}, patch", "--write=patch"),
        "go-no-predicate": go(f"{GO}, no predicate", "--predicate=false"),
        "go-unstructured": go("controller-runtime, unstructured", "--unstructured"),
        "go-unstructured-no-predicate": go(
            "controller-runtime, unstructured, no predicate", "--unstructured", "--predicate=false"
        ),
        "kopf": python("kopf_operator", KOPF),
        "watch": python("watch_loop", "kubernetes_asyncio Watch"),
        "bare": python("bare", CEILING),
        "bare-patch": python("bare", CEILING_PATCH, "--write=patch"),
        "bare-watch": python("bare", CEILING_WATCH, "--sees=events"),
    }


_RECONCILE = {
    "ours",
    "ours-uvloop",
    "ours-patch",
    "ours-not-adaptive",
    "ours-one-worker",
    "other-python",
    "rust",
    "go",
    "go-unstructured",
    "kopf",
}

_NEIGHBORS = 4.0
"""Seconds for which other clients read, during the work and after it."""

FIT = {
    "start": (_RECONCILE | {"watch", "bare"}) - {"kopf"},
    "start-text": (_RECONCILE | {"watch", "bare"}) - {"kopf"},
    "memory": {"ours", "ours-uvloop", "other-python", "rust", "go"},
    "latency": _RECONCILE | {"watch"},
    "backlog": _RECONCILE - {"kopf"},
    "neighbors": _RECONCILE - {"kopf"},
    "steady": _RECONCILE,
}
"""Who can do what: a bare client has no timers, and in place of a cache it throws away what it was sent."""


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--profile", choices=PROFILES, default="smoke", help="how much of everything (default: smoke)")
    sizes.add_argument(
        "--quick",
        dest="profile",
        action="store_const",
        const="quick",
        help="--profile quick: half an hour, two cores",
    )
    parser.add_argument("--works", help=f"which works, of {','.join(WORKS)}; default: the profile's")
    parser.add_argument(
        "--contenders", help=f"which contenders, of {','.join(contenders(Programs()))}; default: the profile's"
    )
    parser.add_argument("--repeats", type=int, help="repetitions; default: the profile's")
    parser.add_argument("--sizes", help="sizes for converge, start and queue in place of the profile's, as 3000,20000")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the contenders (default: 1)")
    parser.add_argument("--go-program", help="a built Go contender; default: build it")
    parser.add_argument("--rust-program", help="a built kube-rs contender; default: build it")
    parser.add_argument(
        "--python", help="another interpreter that has this project installed, for the contender other-python"
    )
    parser.add_argument(
        "--apiserver-flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="a flag for kube-apiserver, as --apiserver-flag=--enable-priority-and-fairness=false; may be repeated",
    )
    parser.add_argument(
        "--output", type=Path, help="directory for result.json, result.md and plots (default: a new one)"
    )
    parser.add_argument("--redraw", type=Path, help="measure nothing; make table and plots of these results", nargs="+")
    parser.add_argument("--publish", action="store_true", help="put table and plots into docs/performance.md as well")
    return parser.parse_args()


class Measuring:
    """Do the works that were asked for, and save after each sample.

    Args:
        chosen: the command line.
        programs: the built contenders.
        result: takes what is measured.
        save: called after each sample.
    """

    def __init__(
        self, chosen: argparse.Namespace, programs: Programs, result: dict[str, Any], save: Callable[[], None]
    ) -> None:
        self._known = contenders(programs)
        self._names = [name for name in chosen.contenders if programs.can_run(name)]
        self._works = chosen.works
        self._profile = PROFILES[chosen.profile]
        self._repeats = chosen.repeats or self._profile.repeats
        self._sizes = tuple(int(size) for size in chosen.sizes.split(",")) if chosen.sizes else None
        self._seed = chosen.seed
        self._program = programs.go
        self._result = result
        self._save = save

    async def run(self) -> None:
        """Measure."""
        for work in self._works:
            if work in ("queue", "decoding", "imports"):
                self._result["parts"][work] = self._part(work)
                self._save()
            for stream in self._streams(work):
                async for sample in stream:
                    self._result["samples"].append(sample)
                    say(json.dumps(sample))
                    self._save()

    def _part(self, work: str) -> list[dict[str, Any]]:
        if work == "queue":
            return [queue(count, self._repeats, self._program) for count in self._sizes or self._profile.queue]
        return [micro(work) for _ in range(self._repeats)]

    def _streams(self, work: str) -> list[AsyncIterator[dict[str, Any]]]:
        profile, sizes, repeats = self._profile, self._sizes, self._repeats
        if work == "steady":
            repeats = min(repeats, profile.steady_repeats)
        fit = FIT.get(work, set(self._known))
        rounds = works.Rounds([self._known[name] for name in self._names if name in fit], repeats, self._seed)
        match work:
            case "converge":
                return [works.converge(rounds, size) for size in sizes or profile.converge]
            case "start":
                return [works.start(rounds, sizes or profile.start)]
            case "start-text":
                return [works.start(rounds, sizes or profile.start[:1], work=work)]
            case "memory":
                return [works.memory(rounds, size) for size in sizes or profile.start[-1:]]
            case "latency":
                return [works.latency(rounds, *profile.latency)]
            case "backlog":
                return [works.backlog(rounds, *profile.backlog)]
            case "neighbors":
                return [works.neighbors(rounds, size, _NEIGHBORS) for size in sizes or profile.converge[-1:]]
            case "steady":
                return [works.steady(rounds, *profile.steady)]
            case "notify":
                return [works.notify(profile.notify, repeats)]
            case "heartbeat":
                return [works.heartbeat(*profile.heartbeat, repeats)]
        return []


def _subset(text: str | None, default: str, known: Collection[str]) -> list[str]:
    names = (text or default).split(",")
    if unknown := set(names) - set(known):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    return names


def say(line: str) -> None:
    """Print progress."""
    sys.stderr.write(line + "\n")


def micro(*arguments: str) -> dict[str, float]:
    """Run a microbenchmark in its own process."""
    command = [sys.executable, "-m", "tests.benchmarks.micro", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    say(f"{' '.join(arguments)}: {done.stdout.strip()}")
    return dict(json.loads(done.stdout))


def queue(count: int, repeats: int, program: str) -> dict[str, Any]:
    """Run the queue on both sides in turn."""
    row: dict[str, Any] = {"count": count, "python": [], "go": []}
    for _ in range(repeats):
        row["python"].append(micro("queue", str(count)))
        if program:
            done = subprocess.run([program, "--work=queue", f"--count={count}"], capture_output=True, check=True)
            found = json.loads(done.stdout)
            row["go"].append({name: found[name] * 1e6 for name in ("client-go", "controller-runtime")})
    return row


def machine() -> str:
    """Describe the machine."""
    info = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{os.cpu_count()} CPUs ({models[0] if models else platform.machine()})", f"{memory:.0f} GiB"]
    parts += [platform.system(), f"Python {platform.python_version()}"]
    parts += [f"{name} {version(name)}" for name in ("aiohttp", "msgspec", "kopf", "kubernetes_asyncio")]
    return ", ".join(parts + versions())


def publish(result: dict[str, Any]) -> None:
    """Replace the figures in the documentation; its text stays."""
    plots = DOCS / "performance"
    plots.mkdir(exist_ok=True)
    images = "".join(f"![{path.stem}](performance/{path.name})\n\n" for path in draw(result, plots))
    page = DOCS / "performance.md"
    page.write_text(_replaced(page.read_text(), SUMMARY, summary(result)))
    (plots / "figures.txt").write_text(f"{markdown(result).strip()}\n\n{images.strip()}\n")
    (plots / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def _replaced(page: str, between: tuple[str, str], text: str) -> str:
    begin, end = between
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


def main() -> None:
    """Measure, then write JSON, table and plots."""
    chosen = options()
    profile = PROFILES[chosen.profile]
    chosen.works = _subset(chosen.works, profile.works, WORKS)
    chosen.contenders = _subset(chosen.contenders, profile.contenders, contenders(Programs()))
    server.FLAGS.extend(chosen.apiserver_flag)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process compiles its modules anew
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that blocks end and their processes with them
    output: Path = chosen.output or Path(tempfile.mkdtemp(prefix="benchmarks-"))
    output.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine(),
        # What was measured, and not where it was put.
        "options": {
            key: getattr(chosen, key)
            for key in ("profile", "works", "contenders", "repeats", "sizes", "seed", "apiserver_flag")
        },
        "samples": [],
        "parts": {},
    }

    def save() -> None:
        (output / "result.json").write_text(json.dumps(result, indent=1) + "\n")

    if chosen.redraw:
        times: list[str] = []
        machines: dict[str, dict[str, None]] = {}  # the works that each has measured
        for number, path in enumerate(chosen.redraw):
            earlier = json.loads(path.read_text())
            for sample in earlier["samples"]:  # repetitions of different runs are not pairs
                result["samples"].append(sample | {"repetition": sample["repetition"] + 1000 * number})
            result["parts"] |= earlier["parts"]
            result["notes"] = earlier.get("notes", [])
            measured = {**{sample["work"]: None for sample in earlier["samples"]}, **dict.fromkeys(earlier["parts"])}
            machines.setdefault(earlier["machine"], {}).update(measured)
            times.append(earlier["when"])
        result["when"] = " to ".join(sorted({min(times), max(times)}))
        result["machine"] = "; ".join(
            machine if len(machines) == 1 else f"{machine} ({', '.join(works)})" for machine, works in machines.items()
        )
    else:
        with tempfile.TemporaryDirectory() as directory:
            programs = build(directory, chosen.contenders, chosen.go_program, chosen.rust_program, chosen.python)
            asyncio.run(Measuring(chosen, programs, result, save).run())
    save()
    (output / "result.md").write_text(markdown(result))
    for path in (*draw(result, output), output / "result.md"):
        sys.stdout.write(f"{path}\n")
    if chosen.publish:
        publish(result)


if __name__ == "__main__":
    main()
