"""kubectl prints the same on the embedded server as on a real one.

The commands are the scripts in ``kubectl/``: paragraphs of shell, which run one after the other in a namespace of their
own. Both servers must give the same output, errors and exit code. A command that cannot has a comment that says why; it
must differ then.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reconciler.apiserver import APIServer
from reconciler.testing.control_plane import ControlPlane
from reconciler.testing.control_plane.binaries import binaries_path
from tests.foreign.kubectl_sessions import SCRIPTS, Command, Outcome, Session, commands_of

PAGE = Path(__file__).parents[2] / "docs" / "embedded-api-server-compatibility.md"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """Yield a real server without the custom kinds of other tests."""
    with ControlPlane(binaries=binaries_path()) as running:
        yield running


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Path]:
    """Yield the kubeconfig of an embedded server that is set up as the real one is."""
    async with APIServer(provision_namespaces=False, rbac=True) as server:
        yield server.write_kubeconfig(tmp_path / "kubeconfig")


def test_the_page_lists_what_differs() -> None:
    page = PAGE.read_text()
    commands = [command for script in SCRIPTS.glob("*.sh") for command in commands_of(script)]
    reasons = [command.differs for command in commands if command.differs]
    assert not [reason for reason in sorted(set(reasons)) if f"| {reason} |" not in page]
    assert f"holds {len(commands)} commands" in page
    assert f"These {len(reasons)} differ" in page


@pytest.mark.control_plane
@pytest.mark.timeout(300)
@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda script: script.stem)
async def test_both_servers_answer_alike(script: Path, embedded: Path, plane: ControlPlane, tmp_path: Path) -> None:
    kubectl = binaries_path() / "kubectl"
    real = Session(kubectl, plane.kubeconfig_path, tmp_path / "real")
    ours = Session(kubectl, embedded, tmp_path / "ours")
    topic = script.stem.partition("-")[2]
    await asyncio.gather(real.enter(topic), ours.enter(topic))
    problems = []
    for command in commands_of(script):
        wanted, found = await asyncio.gather(real.run(command.text), ours.run(command.text))
        problems += _problem(command, wanted, found)
    assert not problems, "\n".join(problems)


def _problem(command: Command, wanted: Outcome, found: Outcome) -> list[str]:
    if command.differs:
        return [] if wanted != found else [f"$ {command.text}\nno longer differs: remove the comment"]
    lines = difflib.unified_diff(str(wanted).splitlines(), str(found).splitlines(), "real", "embedded", lineterm="")
    return [] if wanted == found else [f"$ {command.text}\n" + "\n".join(lines)]
