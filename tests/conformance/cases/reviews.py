"""Questions about access: reviews, which are answered and never stored (23)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case

AUTHORIZATION = "/apis/authorization.k8s.io/v1"
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
PODS = {"resourceAttributes": {"namespace": "default", "verb": "create", "resource": "pods"}}
ALLOWED = ("apiVersion", "kind", "spec", "status.allowed")


def review(kind: str, spec: dict[str, Any] | None = None, group: str = "authorization") -> dict[str, Any]:
    """Return a review."""
    made: dict[str, Any] = {"apiVersion": f"{group}.k8s.io/v1", "kind": kind}
    return made if spec is None else {**made, "spec": spec}


@case("a SelfSubjectAccessReview is answered")
async def _(api: Api) -> None:
    path = f"{AUTHORIZATION}/selfsubjectaccessreviews"
    await api.call("POST", path, review("SelfSubjectAccessReview", PODS), keep=ALLOWED)
    url = {"nonResourceAttributes": {"path": "/healthz", "verb": "get"}}
    await api.call("POST", path, review("SelfSubjectAccessReview", url), keep=ALLOWED)


@case("access of another user")
async def _(api: Api) -> None:
    spec = {**PODS, "user": "jane", "groups": ["system:masters"]}
    path = f"{AUTHORIZATION}/subjectaccessreviews"
    await api.call("POST", path, review("SubjectAccessReview", spec), keep=ALLOWED)
    path = f"{AUTHORIZATION}/namespaces/default/localsubjectaccessreviews"
    local = {**review("LocalSubjectAccessReview", spec), "metadata": {"namespace": "default"}}
    await api.call("POST", path, local, keep=ALLOWED)


@case("SelfSubjectRulesReview of a namespace")
async def _(api: Api) -> None:
    spec = {"namespace": "default"}
    path, keep = f"{AUTHORIZATION}/selfsubjectrulesreviews", ("apiVersion", "kind", "status.incomplete")
    await api.call("POST", path, review("SelfSubjectRulesReview", spec), keep=keep)


@case("a review has nothing to be read")
async def _(api: Api) -> None:
    for method in ("GET", "PUT", "DELETE"):
        body = review("SelfSubjectAccessReview", PODS) if method == "PUT" else None
        await api.call(method, f"{AUTHORIZATION}/selfsubjectaccessreviews", body)
    await api.call("GET", f"{AUTHORIZATION}/selfsubjectaccessreviews/a")
    await api.call("POST", f"{AUTHORIZATION}/nothing", {})


@case("SelfSubjectReview")
async def _(api: Api) -> None:
    body = review("SelfSubjectReview", group="authentication")
    await api.call("POST", f"{AUTHENTICATION}/selfsubjectreviews", body, keep=("apiVersion", "kind"))


@case("a review that asks nothing, or two things")
async def _(api: Api) -> None:
    path = f"{AUTHORIZATION}/selfsubjectaccessreviews"
    both = {**PODS, "nonResourceAttributes": {"path": "/", "verb": "get"}}
    for spec in ({}, both):
        await api.call("POST", path, review("SelfSubjectAccessReview", spec))
    await api.call("POST", f"{AUTHORIZATION}/subjectaccessreviews", review("SubjectAccessReview", PODS))
    await api.call("POST", f"{AUTHORIZATION}/selfsubjectrulesreviews", review("SelfSubjectRulesReview", {}))
    await api.call("POST", path, review("SubjectAccessReview", PODS))


@case("a review of empty attributes, and one of a path in a namespace")
async def _(api: Api) -> None:
    for attributes in ({"resourceAttributes": {}}, {"nonResourceAttributes": {}}):
        body = review("SelfSubjectAccessReview", attributes)
        await api.call("POST", f"{AUTHORIZATION}/selfsubjectaccessreviews", body, keep=("status.allowed",))
    local = f"{AUTHORIZATION}/namespaces/{api.ns}/localsubjectaccessreviews"
    asked = {"user": "jane", "nonResourceAttributes": {"path": "/a", "verb": "get"}}
    await api.call("POST", local, review("LocalSubjectAccessReview", asked))


@case("TokenReview of a token that is not valid")
async def _(api: Api) -> None:
    path, keep = f"{AUTHENTICATION}/tokenreviews", ("apiVersion", "kind", "spec", "status.authenticated", "status.user")
    for token in ("nonsense", "a.b.c", "x" * 10_000):
        await api.call("POST", path, review("TokenReview", {"token": token}, "authentication"), keep=keep)
    for spec in ({}, {"token": ""}, {"token": 1}, None):
        await api.call("POST", path, review("TokenReview", spec, "authentication"))
    await api.call("GET", path)
    await api.call("POST", path, review("SubjectAccessReview", PODS))
