"""Retries: which requests are retried, which never are, and how long a client waits."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.client import Client, Retries
from reconciler.errors import (
    AlreadyExists,
    APIError,
    Conflict,
    Forbidden,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ServerError,
    ServerUnavailable,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from reconciler.http import HTTPResponse

pytestmark = pytest.mark.virtual_time

OBJECT = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "prod", "uid": "u1", "resourceVersion": "7"},
    "data": {"a": "b"},
}
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "owner", "controller": True}
OWNED = {**OBJECT, "metadata": {**OBJECT["metadata"], "ownerReferences": [OWNER]}}  # type: ignore[dict-item]
EXACT = Retries(jitter=0)

VERBS = {
    "get": lambda c: c.get("v1/ConfigMap", "c", "prod"),
    "list": lambda c: c.list("v1/ConfigMap", "prod"),
    "create": lambda c: c.create(OBJECT),
    "generate": lambda c: c.create({**OBJECT, "metadata": {"generateName": "c-", "namespace": "prod"}}),
    "update": lambda c: c.update(OBJECT),
    "patch": lambda c: c.patch("v1/ConfigMap", "c", "prod", patch={}),
    "locked patch": lambda c: c.patch("v1/ConfigMap", "c", "prod", patch={}, resource_version="7"),
    "apply": lambda c: c.apply(OBJECT),
    "delete": lambda c: c.delete("v1/ConfigMap", "c", "prod"),
    "delete by uid": lambda c: c.delete(OBJECT),
    "delete all": lambda c: c.delete_all_of("v1/ConfigMap", "prod"),
    "create subresource": lambda c: c.create_subresource("v1/Pod", "p", "prod", subresource="eviction", body={}),
}
MEANS_ONE_THING = {"get", "list", "create", "delete by uid"}


@pytest.fixture
def client(script: Any) -> Client:
    return Client(script, retries=EXACT)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("refusal", ["429", "not connected"])
async def test_requests_rejected_before_execution_are_retried_for_any_verb(
    script: Any, client: Client, verb: str, refusal: str
) -> None:
    for _ in range(4):
        script.refuses(429, "TooManyRequests") if refusal == "429" else script.fails(NotSent("refused"))
    script.answers(OBJECT)
    await VERBS[verb](client)
    assert len(script.requests) == 5
    assert len({request.body for request in script.requests}) == 1
    assert asyncio.get_running_loop().time() == pytest.approx(0.1 + 0.2 + 0.4 + 0.8)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("loss", ["lost", "500", "503", "504"])
async def test_requests_that_may_have_been_executed_are_retried_only_if_that_is_safe(
    script: Any, client: Client, verb: str, loss: str
) -> None:
    script.fails(OutcomeUnknown("reset")) if loss == "lost" else script.refuses(int(loss))
    script.answers(OBJECT)
    if verb in MEANS_ONE_THING:
        await VERBS[verb](client)
        assert len(script.requests) == 2
    else:
        with pytest.raises(OutcomeUnknown if loss == "lost" else ServerError):
            await VERBS[verb](client)
        assert len(script.requests) == 1


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 409, 410, 413, 415, 422])
async def test_other_refusals_are_never_retried(script: Any, client: Client, code: int) -> None:
    script.refuses(code)
    with pytest.raises(APIError):
        await client.get("v1/ConfigMap", "c", "prod")
    assert len(script.requests) == 1


async def test_the_last_failure_is_raised_after_all_attempts(script: Any) -> None:
    for code in (500, 503, 500):
        script.refuses(code, message=f"number {len(script.steps)}")
    with pytest.raises(ServerError, match="number 2"):
        await Client(script, retries=Retries(attempts=3)).get("v1/ConfigMap", "c", "prod")


async def test_one_attempt_means_no_retries(script: Any) -> None:
    script.refuses(429)
    with pytest.raises(TooManyRequests):
        await Client(script, retries=Retries(attempts=1)).get("v1/ConfigMap", "c", "prod")
    assert asyncio.get_running_loop().time() == 0


# how long


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("3", id="seconds"),
        pytest.param("Thu, 01 Jan 2026 00:00:03 GMT", id="date"),
        pytest.param(None, id="in the Status"),
    ],
)
async def test_the_wait_that_the_server_asks_for_is_honored(script: Any, client: Client, header: str | None) -> None:
    if header is None:
        script.refuses(429, retryAfterSeconds=3)
    else:
        script.answers({}, 429, retry_after=header)
    script.answers(OBJECT)
    await client.get("v1/ConfigMap", "c", "prod")
    assert asyncio.get_running_loop().time() == 3


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("header", ["30", "Thu, 01 Jan 2026 00:00:30 GMT", None])
async def test_a_requested_wait_longer_than_the_maximum_is_honored(
    script: Any, client: Client, code: int, header: str | None
) -> None:
    if header is None:
        script.refuses(code, retryAfterSeconds=30)
    else:
        script.answers({}, code, retry_after=header)
    script.answers(OBJECT)
    await client.get("v1/ConfigMap", "c", "prod")
    assert asyncio.get_running_loop().time() == 30
    assert len(script.requests) == 2


async def test_the_backoff_applies_if_it_is_longer(script: Any) -> None:
    script.refuses(429, retryAfterSeconds=1).answers(OBJECT)
    await Client(script, retries=Retries(base=5, jitter=0)).get("v1/ConfigMap", "c", "prod")
    assert asyncio.get_running_loop().time() == 5


async def test_clients_that_were_asked_for_the_same_wait_do_not_return_at_once(script: Any) -> None:
    times = set()
    for seed in range(20):
        started = asyncio.get_running_loop().time()
        script.refuses(429, retryAfterSeconds=30).answers(OBJECT)
        await Client(script, rng=random.Random(seed)).get("v1/ConfigMap", "c", "prod")
        times.add(asyncio.get_running_loop().time() - started)
    assert len(times) == 20
    assert 30 <= min(times) < 30.5
    assert 32.5 < max(times) <= 33


@pytest.mark.parametrize("code", [429, 503])
async def test_a_wait_beyond_the_deadline_is_raised_at_once(script: Any, client: Client, code: int) -> None:
    script.answers({}, code, retry_after="600")
    with pytest.raises(APIError) as caught:
        await client.get("v1/ConfigMap", "c", "prod")
    assert caught.value.retry_after == 600
    assert asyncio.get_running_loop().time() == 0


async def test_all_waits_together_end_before_the_deadline(script: Any) -> None:
    for _ in range(9):
        script.refuses(429, retryAfterSeconds=30)
    with pytest.raises(TooManyRequests):
        await Client(script, retries=Retries(attempts=9, jitter=0)).get("v1/ConfigMap", "c", "prod")
    assert len(script.requests) == 5
    assert asyncio.get_running_loop().time() == 120


@pytest.mark.parametrize("header", ["1" + "0" * 30, "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_no_wait_is_longer_than_an_hour(script: Any, header: str) -> None:
    script.answers({}, 429, retry_after=header).answers(OBJECT)
    patient = Client(script, retries=Retries(deadline=1e6))
    await patient.get("v1/ConfigMap", "c", "prod")
    assert 3600 < asyncio.get_running_loop().time() <= 3960


async def test_a_huge_wait_in_the_status_is_an_hour(script: Any, client: Client) -> None:
    script.refuses(429, retryAfterSeconds=10**15)
    with pytest.raises(TooManyRequests) as caught:
        await client.get("v1/ConfigMap", "c", "prod")
    assert caught.value.retry_after == 3600


@pytest.mark.parametrize(
    "header", ["soon", "-5", "1e9", "3.5", "", "\u00b2", "nan", "Thu, 99 Jan 2026 00:00:03 GMT", "Thu", ",", "1, 2"]
)
async def test_a_malformed_retry_after_is_ignored(script: Any, client: Client, header: str) -> None:
    script.answers({}, 429, retry_after=header).answers(OBJECT)
    await client.get("v1/ConfigMap", "c", "prod")
    assert asyncio.get_running_loop().time() == pytest.approx(0.1)


@pytest.mark.parametrize("seconds", [-5, "5", True, None, [], {"a": 1}])
async def test_a_malformed_wait_in_the_status_is_ignored(script: Any, client: Client, seconds: Any) -> None:
    script.refuses(429, retryAfterSeconds=seconds).answers(OBJECT)
    await client.get("v1/ConfigMap", "c", "prod")
    assert asyncio.get_running_loop().time() == pytest.approx(0.1)


async def test_discovery_waits_as_long_as_the_server_asks(script: Any, client: Client) -> None:
    asked: list[float] = []

    class Shedding:
        async def send(self, request: Any, /) -> Any:
            if request.path == "/api/v1":
                asked.append(asyncio.get_running_loop().time())
                if len(asked) == 1:
                    return HTTPResponse(429, {"retry-after": "30"})
            return await script.send(request)

    script.answers(OBJECT)
    await Client(Shedding(), retries=EXACT).get("v1/ConfigMap", "c", "prod")
    assert asked == [0, 30]


@pytest.mark.parametrize("code", [429, 503])
async def test_wait_for_waits_as_long_as_the_server_asks(script: Any, code: int) -> None:
    client = Client(script, retries=Retries(attempts=1))
    script.refuses(code, retryAfterSeconds=300)
    script.answers({"items": [OBJECT], "metadata": {"resourceVersion": "7"}})
    await client.wait_for("v1/ConfigMap", "c", "prod", until=bool, timeout=900)
    assert 300 <= asyncio.get_running_loop().time() <= 330
    assert len(script.requests) == 2


async def test_the_jitter_follows_the_seed(script: Any) -> None:
    times = []
    for seed in (1, 1, 2):
        started = asyncio.get_running_loop().time()
        script.refuses(429).refuses(429).answers(OBJECT)
        await Client(script, rng=random.Random(seed)).get("v1/ConfigMap", "c", "prod")
        times.append(round(asyncio.get_running_loop().time() - started, 6))
    assert times[0] == times[1] != times[2]


@settings(deadline=None)
@given(
    base=st.floats(0, 10),
    maximum=st.floats(0, 100),
    jitter=st.floats(0, 1),
    n=st.integers(0, 2000),
    asked=st.none() | st.floats(0, 100),
)
def test_a_wait_is_never_shorter_than_asked_and_never_longer_than_its_bounds(
    base: float, maximum: float, jitter: float, n: int, asked: float | None
) -> None:
    policy = Retries(base=base, maximum=maximum, jitter=jitter)
    delay = policy.delay(n, TooManyRequests("", status=429, retry_after=asked), random.Random(0))
    assert (asked or 0) <= delay <= max(maximum * (1 + jitter), 1.1 * (asked or 0))


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"base": -1}, {"jitter": 2}, {"maximum": -1}])
def test_invalid_retries_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Retries(**wrong)


# evictions


async def test_an_eviction_that_a_budget_forbids_is_an_answer_not_overload(script: Any, client: Client) -> None:
    script.refuses(429, "TooManyRequests", causes=[{"reason": "DisruptionBudget", "message": "m"}])
    with pytest.raises(TooManyRequests):
        await VERBS["create subresource"](client)
    assert len(script.requests) == 1


# creations whose response was lost


async def test_a_creation_without_a_name_is_never_retried_after_a_lost_answer(script: Any, client: Client) -> None:
    script.fails(OutcomeUnknown("reset"))
    with pytest.raises(OutcomeUnknown):
        await VERBS["generate"](client)
    assert len(script.requests) == 1


async def test_a_name_that_was_taken_from_the_start_is_already_exists(script: Any, client: Client) -> None:
    script.refuses(429).refuses(409, "AlreadyExists")
    with pytest.raises(AlreadyExists):
        await client.create(OBJECT)
    assert [request.method for request in script.requests] == ["POST", "POST"]


async def test_a_name_that_is_taken_after_a_lost_answer_is_unknown(script: Any, client: Client) -> None:
    script.fails(OutcomeUnknown("reset")).refuses(409, "AlreadyExists").answers(OBJECT)
    with pytest.raises(
        OutcomeUnknown, match=r"POST .*/configmaps: the response to the first attempt was lost"
    ) as caught:
        await client.create(OBJECT)
    assert isinstance(caught.value.__cause__, AlreadyExists)


async def test_after_a_lost_answer_an_object_of_the_same_owner_with_all_that_was_sent_is_ours(
    script: Any, client: Client
) -> None:
    sent = {**OWNED, "metadata": {"name": "c", "namespace": "prod", "ownerReferences": [OWNER]}}
    script.refuses(500).refuses(409, "AlreadyExists").answers(OWNED)
    assert (await client.create(sent)).uid == "u1"


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(OBJECT, id="no owner"),
        pytest.param(
            {**OWNED, "metadata": {**OWNED["metadata"], "ownerReferences": [{**OWNER, "uid": "x"}]}},  # type: ignore[dict-item]
            id="another owner",
        ),
        pytest.param({**OWNED, "data": {"a": "c"}}, id="other content"),
        pytest.param(None, id="gone again"),
    ],
)
async def test_an_object_that_is_not_provably_ours_is_an_unknown_outcome(
    script: Any, client: Client, stored: Any
) -> None:
    sent = {**OWNED, "metadata": {"name": "c", "namespace": "prod", "ownerReferences": [OWNER]}}
    script.fails(OutcomeUnknown("reset")).refuses(409, "AlreadyExists")
    script.refuses(404, "NotFound") if stored is None else script.answers(stored)
    with pytest.raises(OutcomeUnknown):
        await client.create(sent)


# deletions whose response was lost


@pytest.mark.parametrize("code", [404, 409])
async def test_a_deletion_with_a_uid_that_finds_nothing_after_a_lost_answer_succeeded(
    script: Any, client: Client, code: int
) -> None:
    script.fails(OutcomeUnknown("reset")).refuses(code)
    assert await client.delete(OBJECT) is None


@pytest.mark.parametrize(("code", "error"), [(404, NotFound), (409, Conflict)])
async def test_a_deletion_that_is_refused_at_once_failed(
    script: Any, client: Client, code: int, error: type[Exception]
) -> None:
    script.refuses(code)
    with pytest.raises(error):
        await client.delete(OBJECT)


async def test_a_conflict_over_the_version_after_a_lost_answer_is_unknown(script: Any, client: Client) -> None:
    script.fails(OutcomeUnknown("reset")).refuses(409, "Conflict", "Precondition failed")
    with pytest.raises(OutcomeUnknown, match="Precondition failed"):
        await client.delete(OBJECT, resource_version="7")


# credentials


class Renewing:
    def __init__(self, script: Any, *, changes: bool) -> None:
        self.script, self.changes, self.renewed = script, changes, 0

    async def send(self, request: Any, /) -> Any:
        return await self.script.send(request)

    async def renew(self) -> bool:
        self.renewed += 1
        return self.changes


async def test_a_request_refused_for_its_credentials_is_sent_once_more_with_new_ones(script: Any) -> None:
    transport = Renewing(script, changes=True)
    script.refuses(401).answers(OBJECT).refuses(401).refuses(401)
    await Client(transport).update(OBJECT)
    with pytest.raises(Unauthorized):
        await Client(transport).update(OBJECT)
    assert (len(script.requests), transport.renewed) == (4, 2)


async def test_credentials_that_stay_the_same_are_not_tried_twice(script: Any) -> None:
    transport = Renewing(script, changes=False)
    with pytest.raises(Unauthorized):
        await Client(transport).get("v1/ConfigMap", "c", "prod") if script.refuses(401) else None
    assert len(script.requests) == 1


# cancellation


async def test_cancelling_a_wait_between_attempts_ends_the_retries(script: Any, client: Client) -> None:
    script.refuses(429, retryAfterSeconds=5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await client.get("v1/ConfigMap", "c", "prod")
    assert len(script.requests) == 1


async def test_low_level_reads_are_sent_once(script: Any, client: Client) -> None:
    rt = await client.resource_type("v1/ConfigMap")
    script.refuses(503).fails(NotSent("refused")).refuses(429)
    with pytest.raises(ServerUnavailable):
        await client.session.raw_list(rt)
    with pytest.raises(TransportError):
        await client.session.open_watch(rt)
    with pytest.raises(TooManyRequests):
        await client.session.open_watch(rt)
    assert len(script.requests) == 3


async def test_forbidden_stays_forbidden(script: Any, client: Client) -> None:
    script.refuses(403)
    with pytest.raises(Forbidden):
        await client.create(OBJECT)


async def test_credentials_are_renewed_below_a_wrapper_and_below_another_client(script: Any) -> None:
    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def send(self, request: Any, /) -> Any:
            return await self.inner.send(request)

    transport = Renewing(script, changes=True)
    client = Client(transport)
    for over in (client.through(Wrapper), Client(client)):
        script.refuses(401).answers(OBJECT)
        await over.get("v1/ConfigMap", "c", "prod")
    assert transport.renewed == 2


async def test_requests_and_retries_are_counted(script: Any, client: Client) -> None:
    script.fails(NotSent("refused")).refuses(429).answers(OBJECT, warnings=['299 - "old"']).refuses(404)
    through = client.through(lambda inner: inner)
    await client.update(OBJECT)
    with pytest.raises(NotFound):
        await through.update(OBJECT)
    counted = client.statistics()
    assert counted == through.statistics()
    assert (counted.requests, counted.retries, counted.unanswered, counted.refused, counted.warnings) == (
        5,  # discovery asked once
        2,
        1,
        2,
        1,
    )
