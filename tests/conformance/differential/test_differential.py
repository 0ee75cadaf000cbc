"""The embedded server and the real one answer alike whatever is asked of them.

Hypothesis draws sequences of requests, and both servers get them; what they answer has to agree word by word. With
``--record`` sequences and answers are written to recorded/, so that a machine without Go compares the embedded server
with the truth as well. ``nox -f .noxfile.py -s campaign`` goes on for thousands of sequences from a seed of chance.
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
from tests.conformance.differential.player import Entry, Step
from tests.conformance.differential.sequences import RULES, sequences
from tests.conformance.differential.servers import RealServer, on_embedded, real_server

RECORDED = Path(__file__).parent / "recorded"
EXAMPLES = int(os.environ.get("DIFFERENTIAL_EXAMPLES", "0"))
"""How many sequences a campaign plays; 0 for the few of a fixed seed, which any test run takes."""
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "0")) or random.SystemRandom().getrandbits(32)
FEW = 120
KEPT = 60
"""How many of the fixed seed's sequences are recorded."""
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
        max_examples=EXAMPLES or FEW,
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
        longest = sorted(played, key=lambda pair: len(pair[0]), reverse=True)[:KEPT]
        for number, (steps, answers) in enumerate(longest, 1):
            record(RECORDED / f"seeded-{number:02}.json", steps, answers)
    assert not differing, "\n\n".join(differing)


def record(path: Path, steps: list[Step], answers: list[Entry]) -> None:
    """Write a sequence and what the real server answered, a step and an answer a line."""
    lines = (
        f" {json.dumps(part)}: [\n{_lines(entries)}\n ]" for part, entries in (("steps", steps), ("answers", answers))
    )
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _lines(entries: list[Any]) -> str:
    return ",\n".join(f"  {json.dumps(entry, ensure_ascii=False)}" for entry in entries)


def test_sequences_are_recorded() -> None:
    assert len(list(RECORDED.glob("seeded-*.json"))) == KEPT


def test_what_is_knowingly_different_is_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "embedded-api-server.md").read_text()
    assert [rule for rule in RULES if f"`{rule}`" not in page] == []


@pytest.fixture(scope="session")
def real(control_plane: Any) -> Iterator[RealServer]:
    """Give the real server with the kinds of the sequences."""
    with real_server(control_plane) as server:
        yield server
