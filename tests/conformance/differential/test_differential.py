"""The embedded server and the real one answer alike whatever is asked of them.

Hypothesis draws sequences of requests, and both servers get them; what they answer has to agree word by word. With
``--record`` sequences and answers are written to recorded/, so that a machine without Go compares the embedded server
with the truth as well. ``nox -s campaign`` goes on for thousands of sequences from a seed of chance.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.conformance.differential.answers import comparison, first_difference
from tests.conformance.differential.kinds import BY_PLURAL
from tests.conformance.differential.player import Entry, Step
from tests.conformance.differential.rules import RULES
from tests.conformance.differential.sequences import sequences
from tests.conformance.differential.servers import RealServer, on_embedded, real_server

RECORDED = Path(__file__).parent / "recorded"
EXAMPLES = int(os.environ.get("DIFFERENTIAL_EXAMPLES", "0"))
"""How many sequences a campaign plays; 0 for the few of a fixed seed, which any test run takes."""
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "0")) or random.SystemRandom().getrandbits(32)
FEW = 60
DRAWN, KEPT = 500, 100
"""How many sequences are drawn to be recorded, and how many of them are: those that show most."""
BY_FILE = pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)


def agree(steps: list[Step], embedded: list[Entry], real: list[Entry]) -> None:
    """Fail with both answers side by side when they differ."""
    if first_difference(embedded, real) is not None:
        pytest.fail(comparison(steps, embedded, real), pytrace=False)


@BY_FILE
def test_the_embedded_server_answers_as_the_real_one_did(path: Path) -> None:
    recorded = json.loads(path.read_text())
    agree(recorded["steps"], asyncio.run(on_embedded(recorded["steps"])), recorded["answers"])


@pytest.mark.control_plane
@BY_FILE
def test_the_real_server_still_answers_as_recorded(
    path: Path, real: RealServer, request: pytest.FixtureRequest
) -> None:
    recorded = json.loads(path.read_text())
    answers = real.play(recorded["steps"])
    if request.config.getoption("--record"):
        record(path, recorded["steps"], answers)
    else:
        agree(recorded["steps"], recorded["answers"], answers)


@pytest.mark.control_plane
@pytest.mark.timeout(max(600, 2 * EXAMPLES))
def test_both_servers_answer_alike(real: RealServer, request: pytest.FixtureRequest) -> None:
    played: list[tuple[list[Step], list[Entry]]] = []
    differing: list[str] = []
    recording = request.config.getoption("--record")

    @settings(
        max_examples=EXAMPLES or (DRAWN if recording else FEW),
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        print_blob=False,
        phases=[Phase.generate] if recording else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(sequences())
    def play(steps: list[Step]) -> None:
        answers, embedded = real.play(steps), asyncio.run(on_embedded(steps))
        if recording and first_difference(embedded, answers) is not None:
            differing.append(comparison(steps, embedded, answers))
            return
        agree(steps, embedded, answers)
        played.append((steps, answers))

    if EXAMPLES:
        print(f"DIFFERENTIAL_SEED={SEED} draws the same sequences again")  # noqa: T201 - to be seen in a campaign
        seed(SEED)(play)()
    else:
        play()
    if recording:
        for number, (steps, answers) in enumerate(telling(played), 1):
            record(RECORDED / f"seeded-{number:03}.json", steps, answers)
    assert not differing, "\n\n".join(differing)


def telling(played: list[tuple[list[Step], list[Entry]]]) -> list[tuple[list[Step], list[Entry]]]:
    """Return sequences that together show most of what was seen, each chosen for what the others before it lack."""
    left, seen, chosen = [(pair, shown(*pair)) for pair in played], set[str](), []
    while left and len(chosen) < KEPT:
        best = max(left, key=lambda entry: len(entry[1] - seen))
        left.remove(best)
        seen |= best[1]
        chosen.append(best[0])
    return chosen


def shown(steps: list[Step], answers: list[Entry]) -> set[str]:
    """Return what a sequence shows: kinds of requests with their responses, one after another, and kinds of events."""
    found: set[str] = set()
    before = ""
    for step, answer in zip(steps, answers, strict=True):
        body = answer.get("body")
        path = step.get("path") or step["watch"]
        parts = [part for part in path.split("/") if part in BY_PLURAL or part in ("status", "scale")]
        asked = f"{step.get('method', 'WATCH')} {step.get('type', '')} {' '.join(parts)}"
        reason = (body.get("reason") or body.get("kind")) if isinstance(body, dict) else ""
        now = f"{asked} {answer['status']} {reason}"
        found |= {now, f"{before} > {now}"}
        found |= {f"{asked} {key}={value} {answer['status']}" for key, value in step.get("query", {}).items()}
        events = [event["type"] if isinstance(event, dict) else event for event in answer.get("events", ())]
        found.add(f"{asked} {' '.join(events)}")
        before = now
    return found


def record(path: Path, steps: list[Step], answers: list[Entry]) -> None:
    """Write a sequence and what the real server answered, a step and a response a line."""
    lines = (
        f" {json.dumps(part)}: [\n{_lines(entries)}\n ]" for part, entries in (("steps", steps), ("answers", answers))
    )
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _lines(entries: list[Any]) -> str:
    return ",\n".join(f"  {json.dumps(entry, ensure_ascii=False)}" for entry in entries)


def test_sequences_are_recorded() -> None:
    assert len(list(RECORDED.glob("seeded-*.json"))) == KEPT


def test_what_is_knowingly_different_is_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "embedded-api-server-compatibility.md").read_text()
    assert [rule for rule in RULES if f"`{rule}`" not in page] == []


@pytest.fixture(scope="session")
def real(control_plane: Any) -> Iterator[RealServer]:
    """Give the real server with the kinds of the sequences."""
    with real_server(control_plane) as server:
        yield server
