"""The cache under RBAC, on a real kube-apiserver: the rights a watch needs, and rights granted later."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from reconciler.cache import Cache, CachedClient, CacheNotSynced
from reconciler.client import Client
from reconciler.errors import Forbidden
from reconciler.testing.control_plane import ControlPlane
from tests.cache.test_on_both_servers import until

pytestmark = pytest.mark.control_plane

MAP = "v1/ConfigMap"
RBAC = "rbac.authorization.k8s.io"

_numbers = itertools.count(1)


class Person:
    """A user with rights in a namespace of its own; the administrator impersonates it."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.name = f"person-{next(_numbers)}"
        document = plane.kubeconfig()
        document["users"][0]["user"]["as"] = self.name
        self._path = folder / self.name
        self._path.write_text(yaml.safe_dump(document))

    def client(self) -> Client:
        return Client.from_config(kubeconfig=self._path)

    async def grant(self, admin: Client, verbs: Sequence[str]) -> None:
        metadata = {"name": self.name, "namespace": self.name}
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": list(verbs)}]
        await admin.apply({"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
        await admin.apply(
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": self.name},
                "subjects": [{"apiGroup": RBAC, "kind": "User", "name": self.name}],
            }
        )


def config_map(person: Person, name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": person.name}}


@pytest.fixture
async def person(control_plane: ControlPlane, tmp_path: Path) -> Person:
    person = Person(control_plane, tmp_path)
    async with control_plane.client() as admin:
        await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": person.name}})
        await admin.create(config_map(person, "a"))
    return person


async def test_rights_granted_later_end_the_wait(control_plane: ControlPlane, person: Person) -> None:
    async with control_plane.client() as admin, person.client() as client:
        with pytest.raises(Forbidden, match=person.name):
            await client.list(MAP, person.name)
        async with Cache(client, namespaces=[person.name]) as cache:
            informer = await cache.informer(MAP)
            await until(lambda: informer.last_error is not None)
            with pytest.raises(CacheNotSynced, match=rf"configmaps in namespace {person.name}: 403 Forbidden"):
                await cache.wait_synced(0.1)
            await person.grant(admin, ["list", "watch"])
            await cache.wait_synced(60)
            assert "a" in {cached.name for cached in informer.store}
            assert informer.last_error is None


async def test_the_right_to_watch_is_enough_for_a_cache(control_plane: ControlPlane, person: Person) -> None:
    async with control_plane.client() as admin, person.client() as client:
        await person.grant(admin, ["watch"])
        async with Cache(client, namespaces=[person.name]) as cache:
            informer = await cache.informer(MAP)
            await cache.wait_synced(60)
            assert "a" in {cached.name for cached in informer.store}
            await admin.create(config_map(person, "b"))
            await until(lambda: "b" in {cached.name for cached in informer.store})
        with pytest.raises(Forbidden):
            await client.list(MAP, person.name)


async def test_cached_reads_need_list_and_watch_and_never_get(control_plane: ControlPlane, person: Person) -> None:
    async with control_plane.client() as admin, person.client() as client:
        await person.grant(admin, ["list", "watch", "create", "deletecollection"])
        async with Cache(client, namespaces=[person.name]) as cache:
            await cache.informer(MAP)
            await cache.wait_synced(60)
            cached = CachedClient(client, cache)
            await cached.create(config_map(person, "b"))
            await cached.delete_all_of(MAP, person.name)
            assert len(await cached.list(MAP, person.name)) == 0
            with pytest.raises(Forbidden):
                await cached.live.get(MAP, "b", person.name)
