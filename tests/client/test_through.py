"""Clients whose requests go through a wrapper."""

from __future__ import annotations

import pytest

from reconciler.client import Client, Retries
from reconciler.errors import ServerUnavailable
from reconciler.http import HTTPRequest, HTTPResponse, Transport

pytestmark = pytest.mark.virtual_time


class Passing:
    """Pass requests on and remember them."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.passed: list[str] = []

    async def send(self, request: HTTPRequest) -> HTTPResponse:
        self.passed.append(request.method)
        return await self.transport.send(request)


async def test_requests_go_through_the_wrapper_and_everything_else_is_shared(script) -> None:
    client = Client(script, user_agent="mine", field_manager="me", retries=Retries(attempts=3, jitter=0))
    passing: list[Passing] = []
    through = client.through(lambda transport: passing.append(Passing(transport)) or passing[0])
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "prod"}}
    script.refuses(503).answers(document)
    await through.get("v1/ConfigMap", "c", "prod")
    assert passing[0].passed == ["GET", "GET"]
    assert script.requests[-1].headers["user-agent"] == "mine"
    assert through.field_manager == "me"
    script.answers(document)
    await client.get("v1/ConfigMap", "c", "prod")
    assert passing[0].passed == ["GET", "GET"]
    assert len(script.discovered) == 1, "what is known of kinds is shared"


async def test_a_wrapped_client_can_have_other_retries(script) -> None:
    client = Client(script)
    once = client.through(lambda transport: transport, retries=Retries(attempts=1))
    await client.resource_type("v1/ConfigMap")
    script.refuses(503)
    with pytest.raises(ServerUnavailable):
        await once.get("v1/ConfigMap", "c", "prod")
    assert len(script.requests) == 1


async def test_batchers_of_both_clients_join(script) -> None:
    client = Client(script)
    through = client.through(lambda transport: transport)
    one, two = (each.status_writer("v1/ConfigMap", "c", "prod").identity for each in (client, through))
    assert one == two
    assert Client(script).status_writer("v1/ConfigMap", "c", "prod").identity != one


def test_a_wrapper_must_return_a_transport(client: Client) -> None:
    with pytest.raises(TypeError, match="object is not a transport, it has no 'send'"):
        client.through(lambda _: object())  # type: ignore[arg-type, return-value]
