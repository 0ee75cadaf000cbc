"""TokenReviews and SubjectAccessReviews for the endpoints: decisions, caches, and an API server that is down."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.errors import NotSent
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import EndpointSecurity, LeaderElection
from reconciler.manager.endpoints import security as reviews
from reconciler.manager.endpoints.security import AccessRefused, Guard, Reviewer
from reconciler.testing import VirtualClock

KUBERNETES = EndpointSecurity(authentication="kubernetes")

USERS: dict[str, dict[str, Any]] = {
    "token-a": {"username": "a", "uid": "1", "groups": ["readers", "system:authenticated"]},
    "token-b": {"username": "b", "uid": "2", "groups": ["system:authenticated"]},
    "token-same-name": {"username": "a", "uid": "3", "groups": ["system:authenticated"]},
    "token-extra": {"username": "a", "uid": "1", "groups": ["readers"], "extra": {"scopes": ["none"]}},
}


class ReviewingServer:
    """An API server that knows `USERS`; the group ``readers`` may get ``/metrics``, unless its scopes say no."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.users = dict(USERS)
        self.behave: Callable[[HTTPRequest], Any] = lambda request: None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        spec = json.loads(request.body)["spec"]
        self.asked.append((request.path.rpartition("/")[2], spec))
        await self.go_on.wait()
        unusual = self.behave(request)
        if isinstance(unusual, Exception):
            raise unusual
        if unusual is not None:
            return HTTPResponse(*unusual)
        if request.path.endswith("tokenreviews"):
            user = self.users.get(spec["token"])
            status: Any = {"user": {}, "error": "invalid"} if user is None else {"authenticated": True, "user": user}
        else:
            allowed = (
                "readers" in spec["groups"]
                and not spec["extra"]
                and spec["nonResourceAttributes"]
                == {
                    "path": "/metrics",
                    "verb": "get",
                }
            )
            status = {"allowed": allowed, "denied": not allowed and "readers" in spec["groups"]}
        return HTTPResponse(201, {}, json.dumps({"status": status}).encode())

    def count(self, plural: str) -> int:
        return sum(path == plural for path, _ in self.asked)


@pytest.fixture
def api() -> ReviewingServer:
    return ReviewingServer()


@pytest.fixture
async def guard(api: ReviewingServer) -> AsyncIterator[Guard]:
    async with Client(api) as client:
        guard = Guard(KUBERNETES, Reviewer(client, current_clock()), current_clock())
        yield guard
        await guard.close()


async def status(guard: Guard, token: str, path: str = "/metrics", method: str = "GET") -> int | str | None:
    """Return the user who is admitted, or the status of the refusal."""
    try:
        return await guard.admit(method, path, [f"Bearer {token}"])
    except AccessRefused as refusal:
        found = refusal
    assert token not in str(found)
    return found.status


@pytest.mark.virtual_time
async def test_each_user_gets_the_own_decision_whatever_is_cached(guard: Guard, api: ReviewingServer) -> None:
    for _ in range(2):
        assert await status(guard, "token-a") == "a"
        assert await status(guard, "token-a", method="HEAD") == "a"
        assert await status(guard, "token-b") == 403
        assert await status(guard, "token-same-name") == 403
        assert await status(guard, "token-extra") == 403
        assert await status(guard, "token-unknown") == 401
        assert await status(guard, "token-a", "/debug/keys") == 403
    assert (api.count("tokenreviews"), api.count("subjectaccessreviews")) == (5, 5)
    sent = next(spec for path, spec in api.asked if path == "subjectaccessreviews" and spec["extra"])
    assert sent == {
        "user": "a",
        "uid": "1",
        "groups": ["readers"],
        "extra": {"scopes": ["none"]},
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }


@pytest.mark.virtual_time
async def test_decisions_expire_and_refusals_sooner(guard: Guard, api: ReviewingServer) -> None:
    assert await status(guard, "token-a") == "a"
    del api.users["token-a"]
    assert await status(guard, "token-c") == 401
    api.users["token-c"] = USERS["token-a"]
    await asyncio.sleep(reviews.REFUSED_SECONDS - 0.1)
    assert await status(guard, "token-c") == 401
    await asyncio.sleep(0.2)
    assert await status(guard, "token-c") == "a"
    assert await status(guard, "token-a") == "a"
    await asyncio.sleep(reviews.ACCEPTED_SECONDS)
    assert await status(guard, "token-a") == 401


def jwt(expires: float) -> str:
    parts = [{"alg": "RS256"}, {"exp": expires, "iss": "x"}, {}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts)


@pytest.mark.virtual_time
@pytest.mark.parametrize("step", [0, 7200, -7200])
async def test_a_token_is_not_accepted_after_it_has_expired(guard: Guard, api: ReviewingServer, step: float) -> None:
    clock = current_clock()
    assert isinstance(clock, VirtualClock)
    token = jwt(clock.now().timestamp() + 5)
    assert await status(guard, "token-b") == 403
    clock.step(step)
    api.users[token] = USERS["token-a"]
    assert await status(guard, token) == "a"
    del api.users[token]
    await asyncio.sleep(4.9)
    assert await status(guard, token) == "a"
    await asyncio.sleep(0.2)
    assert await status(guard, token) == 401


DEEP = base64.urlsafe_b64encode(b'{"x":' + b"[" * 8000).decode()


@pytest.mark.parametrize(
    "token", ["a.b.c", f"a.{DEEP}.c", "..", "a.e30.c", f"a.{'x' * 4000}.c", "a.eyJleHAiOiJ4In0.c", jwt(1e308)]
)
@pytest.mark.virtual_time
async def test_odd_tokens_are_those_of_the_server(guard: Guard, api: ReviewingServer, token: str) -> None:
    assert await status(guard, token) == 401
    api.users[token] = USERS["token-a"]
    await asyncio.sleep(reviews.REFUSED_SECONDS + 1)
    assert await status(guard, token) == "a"


@pytest.mark.virtual_time
async def test_guesses_do_not_push_out_the_tokens_in_use(guard: Guard, api: ReviewingServer) -> None:
    assert await status(guard, "token-a") == "a"
    for number in range(1100):
        await asyncio.sleep(0.05)
        assert await status(guard, f"guess-{number}") == 401
    before = len(api.asked)
    assert await status(guard, "token-a") == "a"
    assert len(api.asked) == before


@pytest.mark.virtual_time
async def test_guesses_have_a_rate_and_do_not_lock_out_known_tokens(guard: Guard, api: ReviewingServer) -> None:
    assert await status(guard, "token-a") == "a"
    await asyncio.sleep(reviews.ACCEPTED_SECONDS)
    found = [await status(guard, f"guess-{number}") for number in range(1000)]
    assert (found.count(401), found.count(503)) == (30, 970)
    assert await status(guard, "token-a") == "a"
    assert await status(guard, "token-b") == 503
    await asyncio.sleep(1)
    assert await status(guard, "token-b") == 403
    assert api.count("tokenreviews") == 33


@pytest.mark.virtual_time
async def test_requests_with_the_same_token_wait_for_one_review(guard: Guard, api: ReviewingServer) -> None:
    api.go_on.clear()
    waiting = [asyncio.create_task(status(guard, "token-a")) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # the client that came first has disconnected
    await asyncio.sleep(0.1)
    api.go_on.set()
    assert set(await asyncio.gather(*waiting[1:])) == {"a"}
    assert (api.count("tokenreviews"), api.count("subjectaccessreviews")) == (1, 1)


@pytest.mark.virtual_time
async def test_concurrent_guesses_are_bounded_and_known_tokens_are_served(guard: Guard, api: ReviewingServer) -> None:
    assert await status(guard, "token-a") == "a"
    api.go_on.clear()
    guesses = [asyncio.create_task(status(guard, f"guess-{number}")) for number in range(100)]
    await asyncio.sleep(0.1)
    assert api.count("tokenreviews") == 17
    assert await status(guard, "token-a") == "a"
    api.go_on.set()
    found = await asyncio.gather(*guesses)
    assert (found.count(401), found.count(503)) == (16, 84)


@pytest.mark.parametrize(
    ("behavior", "reason"),
    [
        (NotSent("GET x: connection refused"), "the API server cannot be asked"),
        ((500, {}, b"{}"), "answered a TokenReview with status 500"),
        ((403, {}, b"{}"), "this process may not create tokenreviews.authentication.k8s.io: grant it"),
        ((404, {}, b"{}"), "status 404"),
        ((200, {}, b'{"status":{"authenticated":true,"user":{"username":"a"}}}'), "status 200"),
        ((201, {}, b""), "the response to a TokenReview is not valid"),
        ((201, {}, b"[" * 100_000), "is not valid"),
        ((201, {}, b'{"status":{"authenticated":"true"}}'), "is not valid"),
        ((201, {}, b'{"status":null}'), "is not valid"),
        ((201, {}, b'{"status":{"authenticated":true,"user":{"username":"\xff"}}}'), "is not valid"),
    ],
)
@pytest.mark.virtual_time
async def test_without_a_decision_nobody_is_admitted(
    guard: Guard, api: ReviewingServer, behavior: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.behave = lambda _: behavior
    assert await status(guard, "token-a") == 503
    assert reason in caplog.text
    assert "token-a" not in caplog.text
    api.behave = lambda _: None
    assert await status(guard, "token-a") == "a"


@pytest.mark.parametrize(
    "answer",
    [
        b'{"status":{}}',
        b'{"status":{"allowed":1}}',
        b'{"status":{"allowed":"true"}}',
        b'{"status":{"allowed":null}}',
        b"null",
    ],
)
@pytest.mark.virtual_time
async def test_a_lying_access_review_admits_nobody(guard: Guard, api: ReviewingServer, answer: bytes) -> None:
    api.behave = lambda request: (201, {}, answer) if request.path.endswith("accessreviews") else None
    assert await status(guard, "token-a") == 503


@pytest.mark.virtual_time
async def test_denied_is_stronger_than_allowed(guard: Guard, api: ReviewingServer) -> None:
    answer = b'{"status":{"allowed":true,"denied":true}}'
    api.behave = lambda request: (201, {}, answer) if request.path.endswith("accessreviews") else None
    assert await status(guard, "token-a") == 403


@pytest.mark.virtual_time
async def test_an_authenticated_user_without_a_name_is_nobody(guard: Guard, api: ReviewingServer) -> None:
    api.users["token-x"] = {"groups": ["readers", "system:masters"]}
    assert await status(guard, "token-x") == 401


@pytest.mark.virtual_time
async def test_a_server_that_hangs_is_given_up_after_five_seconds(guard: Guard, api: ReviewingServer) -> None:
    api.go_on.clear()
    began = asyncio.get_running_loop().time()
    assert await status(guard, "token-a") == 503
    assert asyncio.get_running_loop().time() - began == pytest.approx(5.0, abs=0.1)


@pytest.mark.virtual_time
async def test_the_shutdown_ends_reviews_in_progress(guard: Guard, api: ReviewingServer) -> None:
    api.go_on.clear()
    waiting = asyncio.create_task(status(guard, "token-a"))
    await asyncio.sleep(0.1)
    await guard.close()
    assert await waiting == 503


# With the manager


async def get(url: str, token: str | None) -> tuple[int, str]:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers, ssl=False) as answer:
        return answer.status, await answer.text()


async def test_the_token_of_the_embedded_api_server_is_valid(
    server: APIServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Manager(client, metrics="127.0.0.1:0", security=KUBERNETES).running() as manager:
        url = f"{manager.metrics_url}/metrics"
        assert (await get(url, None))[0] == 401
        assert await get(url, "wrong") == (401, "401: the token is not valid, or has expired\n")
        assert (await get(url, server.token))[0] == 200
        server.faults.add(status=500, times=None)
        assert (await get(url, "another"))[0] == 503
        assert (await get(url, server.token))[0] == 200
    assert server.token not in caplog.text


async def test_a_standby_answers_scrapes(server: APIServer, client: Client) -> None:
    def options(identity: str) -> Any:
        election = LeaderElection("operator", namespace="default", identity=identity)
        return {"leader_election": election, "metrics": "127.0.0.1:0", "security": KUBERNETES}

    async with Manager(client, **options("one")).running() as leader:
        while not leader.statistics().leading:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        async with Manager(client, **options("two")).running() as standby:
            for manager in (leader, standby):
                assert (await get(f"{manager.metrics_url}/metrics", server.token))[0] == 200
            assert standby.statistics().leading is False


def test_roles_allow_reviews_and_name_the_paths_of_readers() -> None:
    documents = Manager(Client(APIServer()), security=KUBERNETES).rbac("operator", namespace="ops")
    role, *readers = (each for each in documents if each["kind"] == "ClusterRole")
    assert role["metadata"]["name"] == "operator"
    assert role["rules"] == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]
    assert {each["metadata"]["name"]: each["rules"] for each in readers} == {
        "operator-metrics-reader": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
        "operator-debug-reader": [{"nonResourceURLs": ["/console", "/debug/*"], "verbs": ["get"]}],
    }
    for security in (None, EndpointSecurity(token="x")):
        plain = Manager(Client(APIServer()), metrics=":8080", security=security).rbac("operator")
        assert [each["kind"] for each in plain] == ["ServiceAccount"]
