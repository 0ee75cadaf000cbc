"""The embedded server answers as a real kube-apiserver does.

Each case is asked of both. What the real server answered is recorded in golden/, so that a machine without Go compares
the embedded server with the truth as well; `pytest --control-plane -m control_plane --record` records it anew.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest
from tests.conformance.api import Api
from tests.conformance.cases import CASES, Case
from tests.conformance.definitions import DEFINITIONS

GOLDEN = Path(__file__).parent / "golden"
BY_NUMBER = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number} {case.title}")


async def prepare(send: Any, case: Case, compact: Any) -> Api:
    """Make the case's namespace."""
    api = Api(send, case.slug, compact)
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": case.slug}}, quiet=True)
    return api


def golden(case: Case) -> Any:
    """Return what the real server answered."""
    return json.loads((GOLDEN / f"{case.slug}.json").read_text())["answers"]


@pytest.mark.virtual_time
@BY_NUMBER
async def test_the_embedded_server_answers_like_the_real_one(case: Case) -> None:
    async with APIServer(provision_namespaces=False) as server:
        await server.apply(*DEFINITIONS, *case.definitions)

        async def compact() -> None:
            server.compact()

        api = await prepare(server.send, case, compact)
        await case.body(api)
    assert api.normalized() == golden(case)


@pytest.mark.control_plane
@BY_NUMBER
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
        text = json.dumps({"title": case.title, "answers": answers}, indent=1, sort_keys=True, ensure_ascii=False)
        (GOLDEN / f"{case.slug}.json").write_text(text + "\n")
    assert answers == golden(case)


def test_there_are_enough_cases_and_each_has_its_golden_answer() -> None:
    assert len(CASES) >= 850
    assert {case.slug for case in CASES} == {path.stem for path in GOLDEN.glob("*.json")}
    assert len({case.number for case in CASES}) == len(CASES)


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
