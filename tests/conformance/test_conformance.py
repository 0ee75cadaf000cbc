"""The embedded server answers as a real kube-apiserver does.

Each case is asked of both. What the real server answered is recorded in golden/, a file for each theme, so that a
machine without Go compares the embedded server with the truth as well. `pytest --control-plane -m control_plane
--record` records it anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest, HTTPResponse
from tests.conformance.api import Api
from tests.conformance.cases import CASES, Case
from tests.conformance.definitions import DEFINITIONS

WITH_ROLES = ("access", "tokens")
"""The themes of cases in which roles limit what users may do; the others need none, since an administrator asks."""
WITH_KINDS = (
    *("access", "addresses", "applies", "changes", "deletion", "discovery", "kubectl", "lists", "mistyped", "objects"),
    *("owners", "patches", "strictness", "twins", "typed", "validation", "watches"),
)
"""The themes of cases that use the kinds of the suite; to install them takes half the time of a case."""
GOLDEN = Path(__file__).parent / "golden"
EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.theme}: {case.title}")


async def prepare(send: Any, case: Case, compact: Any) -> Api:
    """Make the case's namespace."""
    api = Api(send, case.namespace, compact)
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": case.namespace}}, quiet=True)
    return api


def golden(case: Case) -> Any:
    """Return what the real server answered."""
    return recorded(case.theme)[case.title]


@functools.cache
def recorded(theme: str) -> dict[str, Any]:
    """Return what the real server answered in the cases of a theme, by their titles."""
    answers: dict[str, Any] = json.loads((GOLDEN / f"{theme}.json").read_text())
    return answers


def record(case: Case, answers: Any) -> None:
    """Write down what the real server answered; several processes may record at once."""
    path = GOLDEN / f"{case.theme}.json"
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        theme = {**json.loads(file.read() or "{}"), case.title: answers}
        present = {other.title for other in CASES if other.theme == case.theme}
        kept = {title: theme[title] for title in sorted(theme) if title in present}
        file.truncate(0)
        file.write(json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


@pytest.mark.virtual_time
@EACH_CASE
async def test_the_embedded_server_answers_like_the_real_one(case: Case) -> None:
    # The recorded server had no controllers beside it.
    async with APIServer(provision_namespaces=False, rbac=case.theme in WITH_ROLES, controllers=()) as server:
        kinds = DEFINITIONS if case.theme in WITH_KINDS else []
        await server.apply(*kinds, *case.definitions)

        async def send(request: HTTPRequest) -> HTTPResponse:
            # The next second, which is what times are stored in. On the real server a case takes one second or two, so
            # what depends on that would fail there some day.
            await asyncio.sleep(1.1)
            return await server.send(request)

        async def compact() -> None:
            server.compact()

        api = await prepare(send, case, compact)
        await case.body(api)
    assert api.normalized() == golden(case)


@pytest.mark.control_plane
@EACH_CASE
async def test_the_real_server_still_answers_like_this(
    case: Case, real_server: Any, request: pytest.FixtureRequest
) -> None:
    async def compact() -> None:
        """Nothing to do: a real server's watch cache begins long after version 1."""

    async with real_server() as send:
        await install(send, *case.definitions)
        api = await prepare(send, case, compact)
        await case.body(api)
    answers = api.normalized()
    if request.config.getoption("--record"):
        record(case, answers)
    else:
        assert answers == golden(case)


def test_there_are_enough_cases_and_each_has_its_golden_answer() -> None:
    assert len(CASES) >= 850
    assert {case.theme for case in CASES} == {path.stem for path in GOLDEN.glob("*.json")}
    titles = {(theme, title) for theme in {case.theme for case in CASES} for title in recorded(theme)}
    assert {(case.theme, case.title) for case in CASES} == titles
    assert len(titles) == len(CASES)


async def install(send: Any, *definitions: dict[str, Any]) -> None:
    """Create definitions on the real server, or find them there, and wait until it serves their kinds."""
    for definition in definitions:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        headers = {"content-type": "application/json"}
        made = await send(HTTPRequest("POST", path, headers=headers, body=json.dumps(definition).encode()))
        assert made.status in (201, 409), made.body
    for definition in definitions:
        spec = definition["spec"]
        paths = [
            f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
            for version in spec["versions"]
            if version["served"]
        ]
        for _ in range(200):
            if all([(await send(HTTPRequest("GET", path))).status == 200 for path in paths]):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError(f"{spec['names']['kind']} was not served within 20 s")


@pytest.fixture(scope="session")
def real_server(control_plane: Any) -> Any:
    """Install the suite's kinds on the real server once; give a way to open a connection to it."""

    async def prepared() -> None:
        async with control_plane.client() as client:
            await install(client.send, *DEFINITIONS)

    asyncio.run(prepared())
    return lambda: _Sender(control_plane)


class _Sender:
    def __init__(self, control_plane: Any) -> None:
        self._client = control_plane.client()

    async def __aenter__(self) -> Any:
        return (await self._client.__aenter__()).send

    async def __aexit__(self, *exc: object) -> None:
        await self._client.__aexit__(*exc)
