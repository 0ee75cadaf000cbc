"""Mutation tests: change the source in small ways, one at a time, and check whether the tests of its package notice.

``python -m tests.mutants --count 20 --seed 1 --room status`` works on a copy of the repository and prints the surviving
mutants. ``survivors.txt`` lists known survivors, with the reason why no test can distinguish them from the original.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.mutants.mutations import Mutation, mutations_of

ROOT = Path(__file__).parents[2]
COPIED = ("reconciler", "tests", "examples", "docs", "pyproject.toml", "README.md", "noxfile.py")
SURVIVORS = Path(__file__).parent / "survivors.txt"

ROOMS: dict[str, tuple[str, ...]] = {
    "controller": ("reconciler/controller/**/*.py",),
    "status": ("reconciler/status/**/*.py",),
    "cache": ("reconciler/cache/**/*.py",),
    "workqueue": ("reconciler/workqueue/**/*.py",),
    "client": ("reconciler/client/**/pool.py",),
    "manager": (
        "reconciler/manager/**/election.py",
        "reconciler/manager/**/lifecycle.py",
    ),
}
"""The mutated sources, by the folder of the tests that must notice."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="total number of mutants; default 60")
    parser.add_argument(
        "--seed",
        type=int,
        default=random.SystemRandom().randrange(10**6),
        help="seed of the random choice of mutants; default random",
    )
    parser.add_argument(
        "--room", action="append", choices=list(ROOMS), help="mutate only this package; can be repeated"
    )
    parser.add_argument("--file", help="mutate only source files whose name contains this text")
    given = parser.parse_args()
    rooms = given.room or list(ROOMS)
    say(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        copy = Path(place)
        for name in COPIED:
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy / name)
        return play(copy, drawn(rooms, given.count, given.seed, given.file))


def drawn(rooms: list[str], count: int, seed: int, part: str | None) -> list[tuple[str, str, Mutation]]:
    """Return mutants by package and file; the packages have equal shares."""
    rng = random.Random(seed)
    found = []
    for position, room in enumerate(rooms):
        share = count // len(rooms) + (position < count % len(rooms))
        files = [
            path for pattern in ROOMS[room] for path in sorted(ROOT.glob(pattern)) if part is None or part in path.name
        ]
        every = [
            (room, str(path.relative_to(ROOT)), each) for path in files for each in mutations_of(path.read_bytes())
        ]
        found += rng.sample(every, min(share, len(every)))
    return found


def play(copy: Path, mutants: list[tuple[str, str, Mutation]]) -> int:
    limits: dict[str, float] = {}
    counts: Counter[str] = Counter()
    known = SURVIVORS.read_text()
    for number, (room, file, mutation) in enumerate(mutants, 1):
        if room not in limits:
            began = time.monotonic()
            if run(copy, room, 1800) != "survived":
                say(f"the tests of {room} fail without any mutation")
                return 2
            limits[room] = max(60.0, 3 * (time.monotonic() - began))
        original = (copy / file).read_bytes()
        (copy / file).write_bytes(mutation.applied(original))
        try:
            outcome = run(copy, room, limits[room])
        finally:
            (copy / file).write_bytes(original)
        text = f"{file}:{mutation.line}: {one_line(mutation.before)} → {one_line(mutation.after)}"
        if outcome == "survived" and described(file, mutation) in known:
            outcome = "known survivor"
        counts[outcome] += 1
        say(f"{number}/{len(mutants)} {outcome}: {text}")
    say(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 1 if counts["survived"] else 0


def run(copy: Path, room: str, limit: float) -> str:
    """Run a package's tests; return the outcome for the mutant."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{room}"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, cwd=copy, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return "survived" if process.wait(limit) == 0 else "killed"
    except subprocess.TimeoutExpired:
        return "killed by the time limit"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def described(file: str, mutation: Mutation) -> str:
    """Return a mutant as written in `survivors.txt`: without the line number, which changes."""
    return f"{file}: {one_line(mutation.before)} → {one_line(mutation.after)}"


def one_line(text: str) -> str:
    return " ".join(text.split())


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
