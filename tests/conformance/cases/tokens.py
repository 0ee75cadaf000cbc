"""Tokens of service accounts: requested, and reviewed (34)."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case

AUTHENTICATION = "/apis/authentication.k8s.io/v1"
REQUESTED = ("kind", "apiVersion", "metadata.name", "metadata.namespace", "metadata.uid", "spec")
AUDIENCE = "https://vault.example"


async def request(api: Api, spec: Any, name: str = "robot", quiet: bool = False, **members: Any) -> str:
    """Request a token and return it."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec, **members}
    options: dict[str, Any] = {"quiet": True} if quiet else {"keep": REQUESTED}
    answer = await api.call("POST", api.path("serviceaccounts", name, "token"), body, **options)
    return str((answer.get("status") or {}).get("token")) if isinstance(answer.get("status"), dict) else ""


async def review(api: Api, token: str, *audiences: str) -> None:
    """Review a token."""
    spec: dict[str, Any] = {"token": token, **({"audiences": list(audiences)} if audiences else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    answer = await api.call("POST", f"{AUTHENTICATION}/tokenreviews", body)
    shown = api.transcript[-1]["body"] = {key: value for key, value in answer.items() if key != "spec"}
    extra = (shown["status"].get("user") or {}).get("extra") or {}
    if "authentication.kubernetes.io/credential-id" in extra:
        # The id of a token is a uid, which nothing else shows.
        extra["authentication.kubernetes.io/credential-id"] = ["JTI"]


async def review_after(api: Api, tokens: list[str]) -> None:
    """Review tokens until one is not valid any more, and note that; a real server remembers tokens for a while."""
    for token in tokens:
        spec = {"token": token, "audiences": [AUDIENCE]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        answer = await api.call("POST", f"{AUTHENTICATION}/tokenreviews", body, quiet=True)
        if not answer["status"].get("authenticated"):
            await review(api, token, AUDIENCE)
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the tokens are still valid")


@case("a token is requested")
async def _(api: Api) -> None:
    await api.create("serviceaccounts", {"metadata": {"name": "robot"}}, keep=("metadata.uid",))
    await request(api, {"audiences": [AUDIENCE]})
    await request(api, {"audiences": [AUDIENCE, "other"], "expirationSeconds": 600})
    await request(api, {"audiences": [AUDIENCE]}, metadata={"name": "robot", "namespace": api.ns})


@case("requests for tokens that are refused")
async def _(api: Api) -> None:
    made = await api.create("serviceaccounts", {"metadata": {"name": "robot"}}, keep=("metadata.uid",))
    for spec in ({"expirationSeconds": 599}, {"expirationSeconds": 2**32 + 1}, {"expirationSeconds": -1}):
        await request(api, spec)
    await request(api, {}, "nobody")
    await request(api, {}, metadata={"name": "other"})
    await request(api, {}, metadata={"namespace": "other"})
    await request(api, {"audiences": [AUDIENCE]}, metadata={"uid": made["metadata"]["uid"]})
    await request(api, {}, metadata={"uid": "wrong"})
    await request(api, {"audiences": "a"})
    await request(api, {"expirationSeconds": "a"})
    path = api.path("serviceaccounts", "robot", "token")
    for method in ("GET", "PUT", "DELETE"):
        await api.call(method, path, {} if method == "PUT" else None)
    await api.call("POST", path, {"apiVersion": "v1", "kind": "Pod"})
    await api.call("POST", path, {"apiVersion": "authentication.k8s.io/v1beta1", "kind": "TokenRequest"})
    await api.call("POST", path, {}, keep=("kind",))


@case("the review of a token")
async def _(api: Api) -> None:
    await api.create("serviceaccounts", {"metadata": {"name": "robot"}}, keep=("metadata.uid",))
    token = await request(api, {"audiences": [AUDIENCE, "second"]}, quiet=True)
    await review(api, token, AUDIENCE)
    await review(api, token, "other", "second", AUDIENCE)
    await review(api, token, "other")
    await review(api, token, "other", "more")
    early = [await request(api, {"audiences": [AUDIENCE]}, quiet=True) for _ in range(20)]
    late = [await request(api, {"audiences": [AUDIENCE]}, quiet=True) for _ in range(20)]
    await api.call("DELETE", api.path("serviceaccounts", "robot"), quiet=True)
    await review_after(api, early)
    await api.create("serviceaccounts", {"metadata": {"name": "robot"}}, keep=("metadata.uid",))
    await review_after(api, late)
