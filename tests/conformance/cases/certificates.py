"""Requests for certificates: what they ask for, who approves and who signs them (35)."""

from __future__ import annotations

import base64
from typing import Any

from tests.conformance.api import MERGE, STRATEGIC, Api
from tests.conformance.cases._case import case
from tests.conformance.cases.access import grant, of, settle, user_of
from tests.conformance.cases.cluster_parts import rows

BASE = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SIGNER = "example.com/robots"
JANE = """\
-----BEGIN CERTIFICATE REQUEST-----
MIHZMIGAAgEAMB4xDTALBgNVBAoMBHRlYW0xDTALBgNVBAMMBGphbmUwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAASGnXC0CZ139LDinQXfd4v5LXtkEvppU+9ebUwL
CeMgTXcNVmjquB/U9GXXw1bvOTtvcSzM77Ncyk1tnp5PZ3FmoAAwCgYIKoZIzj0E
AwIDSAAwRQIhANHh6IofnL4HDzPsqzRjab8wZB8GRjeLPyPFfhIgON8BAiBdiMDy
9QegGHi6VZTQ8VmdmgJjgfm8EtN2KJFqyJw1FQ==
-----END CERTIFICATE REQUEST-----
"""
MASTERS = """\
-----BEGIN CERTIFICATE REQUEST-----
MIHjMIGKAgEAMCgxFzAVBgNVBAoMDnN5c3RlbTptYXN0ZXJzMQ0wCwYDVQQDDARi
b3NzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhp1wtAmdd/Sw4p0F33eL+S17
ZBL6aVPvXm1MCwnjIE13DVZo6rgf1PRl18NW7zk7b3EszO+zXMpNbZ6eT2dxZqAA
MAoGCCqGSM49BAMCA0gAMEUCIQDn2Fv702eg4IDpAJr+PS/Yag1WGjddFOfcMmiP
ucXxbgIgG2FYntCwoEjcnKo+m/GB7b/dLk4i8fPVt1vNmhC+1uo=
-----END CERTIFICATE REQUEST-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUC509WAVk+60pOtlW0kGg816SO7YwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEamFuZTAgFw0yNjExMjcyMDEzNDVaGA8yMTI2MTEwMzIwMTM0
NVowDzENMAsGA1UEAwwEamFuZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIad
cLQJnXf0sOKdBd93i/kte2QS+mlT715tTAsJ4yBNdw1WaOq4H9T0ZdfDVu85O29x
LMzvs1zKTW2enk9ncWajUzBRMB0GA1UdDgQWBBRzflI4KA7WmUO8qx/Hc3d1YTWu
vDAfBgNVHSMEGDAWgBRzflI4KA7WmUO8qx/Hc3d1YTWuvDAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIDkO7xCwDLiwv34qHemyigZuAypMrKKqlLRC
f1OU1assAiEAgQFh7tSMeBXldyoLn/0O28j+rtmYFW1n6Q4wqRldN7c=
-----END CERTIFICATE-----
"""


def encoded(text: str) -> str:
    """Return a text in base64."""
    return base64.b64encode(text.encode()).decode()


def request(api: Api, name: str = "a", **spec: Any) -> dict[str, Any]:
    """Return a request whose name belongs to the case alone."""
    default = {"request": encoded(JANE), "signerName": SIGNER, "usages": ["client auth"]}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"{name}-{api.ns}"},
        "spec": {key: value for key, value in {**default, **spec}.items() if value is not None},
    }


def condition(kind: str, status: str = "True", **more: Any) -> dict[str, Any]:
    """Return a condition."""
    return {"type": kind, "status": status, "reason": "Test", "message": "m", **more}


BOSS = {"impersonate-user": "boss", "impersonate-group": "system:masters", "impersonate-uid": "u-1"}


async def create(api: Api, body: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Create a request, by default as a user that both servers call the same."""
    return await api.call("POST", BASE, body, **{"headers": BOSS, **options})


async def put(api: Api, made: dict[str, Any], sub: str = "", status: Any = None, **members: Any) -> dict[str, Any]:
    """Replace a request or a part of it."""
    name = made["metadata"]["name"]
    body = {**made, "metadata": {"name": name}, **({} if status is None else {"status": status}), **members}
    answer = await api.call("PUT", f"{BASE}/{name}{f'/{sub}' if sub else ''}", body)
    return answer if answer.get("kind") != "Status" else made


@case("a request is created with its user")
async def _(api: Api) -> None:
    more = {"username": "joe", "groups": ["x"], "uid": "1", "extra": {"a": ["b"]}}
    made = await create(api, {**request(api, **more), "status": {"certificate": encoded(CERTIFICATE)}})
    await api.call("GET", f"{BASE}/{made['metadata']['name']}")
    for sub in ("status", "approval"):
        await api.call("GET", f"{BASE}/{made['metadata']['name']}/{sub}")
    await create(api, request(api, "b", expirationSeconds=600), keep=("spec.expirationSeconds",))
    await api.call("DELETE", f"{BASE}/{made['metadata']['name']}")


@case("requests that are refused")
async def _(api: Api) -> None:
    broken = JANE.replace("CERTIFICATE REQUEST", "CERTIFICATE")
    for spec in (
        {"request": encoded("nonsense")},
        {"request": encoded(broken)},
        {"request": None},
        {"request": "!"},
        {"usages": None},
        {"usages": ["client auth", "client auth", "dancing"]},
        {"signerName": None},
        {"signerName": "robots"},
        {"signerName": "example.com/a/b"},
        {"signerName": "Example.com/robots"},
        {"signerName": "kubernetes.io/legacy-unknown"},
        {"expirationSeconds": 599},
        {"request": encoded(MASTERS), "signerName": "kubernetes.io/kube-apiserver-client"},
    ):
        await create(api, request(api, **spec))


@case("the spec of a request does not change")
async def _(api: Api) -> None:
    made = await create(api, request(api), keep=("metadata.name",))
    spec = {**made["spec"], "signerName": "example.com/others", "usages": ["server auth"]}
    await put(api, made, spec=spec)
    labels = {"metadata": {"labels": {"a": "b"}}, "spec": {"signerName": "example.com/others"}}
    await api.call("PATCH", f"{BASE}/{made['metadata']['name']}", labels, content=MERGE)
    await put(api, made, status={"conditions": [condition("Approved")]})


@case("the table of a request")
async def _(api: Api) -> None:
    made = await create(api, request(api, expirationSeconds=7200), keep=("metadata.name",))
    await rows(api, f"{BASE}/{made['metadata']['name']}")
    status: dict[str, Any] = {"conditions": [condition("Approved")]}
    await put(api, made, "approval", status)
    status = {"conditions": [*status["conditions"], condition("Failed")], "certificate": encoded(CERTIFICATE)}
    await put(api, made, "status", status)
    await rows(api, f"{BASE}/{made['metadata']['name']}")


@case("a request is approved and signed")
async def _(api: Api) -> None:
    made = await create(api, request(api), keep=("metadata.name",))
    made = await put(api, made, "approval", {"conditions": [condition("Approved")], "certificate": "QQ=="})
    conditions = made["status"]["conditions"]
    made = await put(api, made, "status", {"conditions": conditions, "certificate": encoded(CERTIFICATE)})
    await put(api, made, "status", {"conditions": conditions, "certificate": encoded(CERTIFICATE * 2)})
    await put(api, made, "status", {"conditions": conditions})
    await put(api, made, "approval", {"conditions": []})


@case("conditions that are refused")
async def _(api: Api) -> None:
    made = await create(api, request(api), keep=("metadata.name",))
    both = [condition("Approved"), condition("Denied")]
    for sub, conditions in (
        ("approval", both),
        ("approval", [condition("Approved", "False")]),
        ("approval", [condition("Approved", "")]),
        ("approval", [condition("")]),
        ("approval", [condition("Other", "Maybe")]),
        ("approval", [condition("Other"), condition("Other")]),
        ("status", [condition("Approved")]),
        ("status", [condition("Failed", "False")]),
        ("status", [condition("Failed")]),
        ("status", []),
    ):
        await put(api, made, sub, {"conditions": conditions})
    for certificate in (
        "nonsense",
        JANE,
        CERTIFICATE.replace("BEGIN CERTIFICATE-----\n", "BEGIN CERTIFICATE-----\na: b\n\n"),
    ):
        await put(api, made, "status", {"conditions": [condition("Failed")], "certificate": encoded(certificate)})


@case("an approval by a patch")
async def _(api: Api) -> None:
    made = await create(api, request(api), keep=("metadata.name",))
    path = f"{BASE}/{made['metadata']['name']}/approval"
    approval = {"status": {"conditions": [condition("Approved")]}}
    # In a later second the second patch sets the time anew, which makes a version: versions are not compared.
    parts = ("kind", "spec.username", "status.conditions")
    await api.call("PATCH", path, approval, content=MERGE, keep=parts)
    await api.call("PATCH", path, approval, content=STRATEGIC, keep=parts)
    for method in ("POST", "DELETE"):
        await api.call(method, path, {} if method == "POST" else None)


@case("requests are selected by their signer")
async def _(api: Api) -> None:
    label = {"labels": {"case": api.ns}}
    for name, signer in (("a", SIGNER), ("b", "example.com/others")):
        body = request(api, name, signerName=signer)
        await create(api, {**body, "metadata": {**body["metadata"], **label}}, quiet=True)
    for selector in (f"spec.signerName={SIGNER}", f"spec.signerName!={SIGNER}", "spec.username=a"):
        query = {"labelSelector": f"case={api.ns}", "fieldSelector": selector}
        answer = await api.call("GET", BASE, query=query, keep=("kind",))
        api.transcript.append({"names": [item["metadata"]["name"] for item in answer.get("items") or ()]})


@case("approving and signing need a permission of their own")
async def _(api: Api) -> None:
    user, group = user_of(api), "certificates.k8s.io"
    resources = [
        "certificatesigningrequests",
        "certificatesigningrequests/approval",
        "certificatesigningrequests/status",
    ]
    await grant(api, user, {"apiGroups": [group], "resources": resources, "verbs": ["*"]}, kind="ClusterRole")
    await settle(api, user, "create", "certificatesigningrequests", group=group, ns="")
    made = await create(api, request(api), keep=("spec.username", "spec.groups"), **of(user))
    path = f"{BASE}/{made['metadata']['name']}"
    approved = {
        **made,
        "metadata": {"name": made["metadata"]["name"]},
        "status": {"conditions": [condition("Approved")]},
    }
    await api.call("PUT", f"{path}/approval", approved, **of(user))
    rule = {"apiGroups": [group], "resources": ["signers"], "resourceNames": ["example.com/*"], "verbs": ["approve"]}
    await grant(api, user, rule, kind="ClusterRole", name="approve")
    await settle(api, user, "approve", "signers", "example.com/*", group=group, ns="")
    await api.call("PUT", f"{path}/approval", approved, keep=("kind",), **of(user))
    signed = {**approved, "status": {**approved["status"], "certificate": encoded(CERTIFICATE)}}
    await api.call("PUT", f"{path}/status", signed, **of(user))
    rule = {**rule, "resourceNames": [SIGNER], "verbs": ["sign"]}
    await grant(api, user, rule, kind="ClusterRole", name="sign")
    await settle(api, user, "sign", "signers", SIGNER, group=group, ns="")
    await api.call("PUT", f"{path}/status", signed, keep=("kind",), **of(user))
