"""Unserved kinds are reported with the messages that each client looks for, the same as those of the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kr8s
import kubernetes
import lightkube
import pytest
from kr8s.asyncio.objects import new_class
from kubernetes.dynamic import DynamicClient
from kubernetes_asyncio import client as aio
from kubernetes_asyncio import config as aio_config
from lightkube.generic_resource import create_namespaced_resource

from reconciler.apiserver import APIServer

ABSENT = {"group": "absent.example.com", "version": "v1", "namespace": "default", "plural": "things"}


def _said(ask: Callable[[], Any]) -> str:
    try:
        return f"answered {ask()}"
    except Exception as error:  # noqa: BLE001 - whatever a client makes of it
        return _words(error)


def _words(error: Exception) -> str:
    body = getattr(error, "body", None) or ""
    body = body.decode() if isinstance(body, bytes) else body
    status = getattr(error, "status", None)
    code = getattr(status, "code", status)
    return f"{type(error).__name__} {code or ''}: {body or error}".partition(" for url")[0]


def _synchronous(kubeconfig: Path) -> dict[str, str]:
    with kubernetes.config.new_client_from_config(str(kubeconfig)) as api:
        custom, dynamic = kubernetes.client.CustomObjectsApi(api), DynamicClient(api)
        said = {
            "official list": _said(lambda: custom.list_namespaced_custom_object(**ABSENT)),
            "official group": _said(lambda: custom.get_api_resources(ABSENT["group"], ABSENT["version"])),
            "official dynamic": _said(lambda: dynamic.resources.get(api_version="absent.example.com/v1", kind="Thing")),
            "official dynamic core": _said(lambda: dynamic.resources.get(api_version="v1", kind="Thing")),
        }
    things = create_namespaced_resource("absent.example.com", "v1", "Thing", "things")
    with lightkube.Client(config=lightkube.KubeConfig.from_file(str(kubeconfig)).get()) as client:
        said["lightkube get"] = _said(lambda: client.get(things, "a", namespace="default"))
        said["lightkube list"] = _said(lambda: list(client.list(things, namespace="default")))
    return said


async def _asynchronous(kubeconfig: Path) -> dict[str, str]:
    configuration = aio.Configuration()
    await aio_config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    said = {}
    async with aio.ApiClient(configuration) as api:
        try:
            await aio.CustomObjectsApi(api).list_namespaced_custom_object(**ABSENT)
        except aio.ApiException as error:
            said["kubernetes_asyncio list"] = _words(error)
    api = await kr8s.asyncio.api(kubeconfig=str(kubeconfig))
    try:
        found = [each async for each in api.get(new_class("Thing", "absent.example.com/v1"))]
        said["kr8s get"] = f"answered {found}"
    except Exception as error:  # noqa: BLE001 - whatever a client makes of it
        said["kr8s get"] = _words(error)
    await api._session.aclose()
    return said


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.control_plane)])
async def address(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "real":
        yield request.getfixturevalue("control_plane").kubeconfig_path
        return
    async with APIServer() as server:
        yield server.write_kubeconfig(tmp_path / "kubeconfig")


@pytest.mark.filterwarnings("ignore:Kubernetes version .* is not supported:UserWarning")
async def test_unserved_kinds_are_reported_as_the_clients_expect(address: Path) -> None:
    said = await asyncio.to_thread(_synchronous, address) | await _asynchronous(address)
    absent = "404 page not found\n"
    assert said == {
        "official list": f"NotFoundException 404: {absent}",
        "official group": f"NotFoundException 404: {absent}",
        "official dynamic": "ResourceNotFoundError : No matches found for "
        "{'api_version': 'absent.example.com/v1', 'kind': 'Thing'}",
        "official dynamic core": "ResourceNotFoundError : No matches found for {'api_version': 'v1', 'kind': 'Thing'}",
        "lightkube get": "HTTPStatusError : Client error '404 Not Found'",
        "lightkube list": "HTTPStatusError : Client error '404 Not Found'",
        "kubernetes_asyncio list": f"ApiException 404: {absent}",
        "kr8s get": f"ServerError {absent}: Client error '404 Not Found'",
    }
