"""Operators that rely on Python 3.14, which evaluates annotations only when they are read."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from reconciler import Client, Manager, Watch
from reconciler.apiserver import APIServer
from reconciler.objects import generate_crd

pytestmark = [
    pytest.mark.virtual_time,
    pytest.mark.skipif(sys.version_info < (3, 14), reason="needs Python 3.14"),
]

OPERATOR = '''
from typing import TYPE_CHECKING, TypedDict
from reconciler import ConditionedStatus, Model, Reconciler, Request, Resource, ResourceReconciler

if TYPE_CHECKING:
    from only_for_type_checkers import Unknown

class SiteSpec(Model):
    pages: list[Page] = []
    owner: Owner | None = None

class Page(Model):
    name: str

class Owner(TypedDict):
    name: str

class SiteStatus(ConditionedStatus):
    pages: int = 0

class Site(Resource[SiteSpec, SiteStatus], group="lazy.example.com", version="v1"):
    """A site."""

class SiteReconciler(ResourceReconciler[Site]):
    known: Unknown

    async def reconcile_object(self, obj: Site, status: Unknown, /) -> Unknown:
        status.set(pages=len(obj.spec.pages))

class Recorder(Reconciler):
    def __init__(self) -> Unknown:
        self.names = set()

    async def reconcile(self, request: Unknown, /) -> Unknown:
        self.names.add(request.name)

def mapper(found: Unknown) -> list[Unknown]:
    return [Request(found.name, "default")]

def predicate(event: Unknown) -> Unknown:
    return True
'''


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "lazy_operator.py").write_text(OPERATOR)
    spec = importlib.util.spec_from_file_location("lazy_operator", tmp_path / "lazy_operator.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy_operator", module)
    spec.loader.exec_module(module)
    return module


async def test_names_may_be_defined_later_or_only_for_type_checkers(
    apiserver: APIServer, client: Client, operator: ModuleType
) -> None:
    await apiserver.apply(generate_crd(operator.Site))
    manager, recorder = Manager(client), operator.Recorder()
    manager.add_controller(operator.SiteReconciler(), resource=operator.Site)
    watch = Watch(operator.Site, mapper=operator.mapper, predicates=[operator.predicate])
    manager.add_controller(recorder, resource="v1/ConfigMap", watches=[watch])
    async with manager.running():
        spec = {"pages": [{"name": "index"}], "owner": {"name": "a"}}
        metadata = {"name": "home", "namespace": "default"}
        await client.create({"apiVersion": "lazy.example.com/v1", "kind": "Site", "metadata": metadata, "spec": spec})
        await asyncio.sleep(1)
        found = await client.get(operator.Site, "home", "default")
    assert found.status.pages == 1
    assert found.spec.owner == {"name": "a"}
    assert recorder.names == {"home"}
