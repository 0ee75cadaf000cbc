"""The permissions that a controller needs, and the warning about requests that its reconciler did not declare."""

from __future__ import annotations

import logging

import pytest

from reconciler.controller import Outcome, Permission, ResourceReconciler, Watch
from reconciler.controller.permissions import AccessRule
from reconciler.errors import ConfigurationError
from reconciler.meta import Request
from reconciler.objects import Resource, Unstructured
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time


def access(world: World, reconciler, **options) -> dict[str, str]:
    """Return the verbs by resource."""
    rules = world.controller(reconciler, **options).access
    return {f"{rule.group}:{rule.resource}": " ".join(rule.verbs) for rule in rules}


async def test_objects_with_a_status_are_watched_and_their_status_written(world: World) -> None:
    assert access(world, WidgetReconciler()) == {
        "example.com:widgets": "get list watch",
        "example.com:widgets/status": "update",
        ":events": "create patch",
    }


async def test_a_reconciler_by_key_writes_nothing_by_itself(world: World) -> None:
    assert access(world, KeyReconciler(), resource="v1/ConfigMap") == {
        ":configmaps": "get list watch",
        ":events": "create patch",
    }


async def test_finalize_patches_the_object_and_its_finalizers(world: World) -> None:
    class Finalizing(WidgetReconciler):
        async def finalize(self, obj, status, /) -> Outcome:
            return None

    assert access(world, Finalizing()) == {
        "example.com:widgets": "get list patch watch",
        "example.com:widgets/status": "update",
        "example.com:widgets/finalizers": "update",
        ":events": "create patch",
    }


async def test_a_named_finalizer_that_is_only_taken_off_is_a_patch(world: World) -> None:
    class Releasing(WidgetReconciler):
        finalizer = "example.com/of-before"

    assert access(world, Releasing())["example.com:widgets"] == "get list patch watch"


@pytest.mark.parametrize(
    ("subresource", "strategy", "patched"),
    [
        ("status", "merge", {"widgets/status"}),
        (None, "merge", {"widgets"}),
        ("status", "apply", {"widgets", "widgets/status"}),  # the first apply takes over earlier patches
    ],
)
async def test_the_status_is_patched_where_it_is_written(world: World, subresource, strategy, patched) -> None:
    class Elsewhere(WidgetReconciler):
        status_subresource = subresource
        status_strategy = strategy

    rules = access(world, Elsewhere())
    assert {name.partition(":")[2] for name, verbs in rules.items() if "patch" in verbs} == patched | {"events"}


@pytest.mark.parametrize(
    ("kind", "main", "verbs"),
    [
        ("example.com/v1/Widget", False, "update"),
        ("apps/v1/Deployment", False, "patch"),
        ("example.com/v1/Widget", True, None),
    ],
)
async def test_by_default_the_status_of_a_custom_kind_is_updated_and_of_a_built_in_one_patched(
    world: World, kind, main, verbs
) -> None:
    class Anything(ResourceReconciler[Unstructured], resource=kind):
        status_subresource = None if main else "status"

        async def reconcile_object(self, obj, status, /) -> Outcome:
            return None

    found = {name.partition("/")[2]: text for name, text in access(world, Anything()).items()}
    assert found.get("status") == verbs


async def test_a_status_that_is_sent_by_update_needs_that_verb(world: World) -> None:
    class Updating(WidgetReconciler):
        status_strategy = "update"

    assert access(world, Updating())["example.com:widgets/status"] == "update"


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("status_strategy", "put", "status_strategy must be one of auto, merge, update, apply, not 'put'"),
        ("status_on_error", "ignore", "status_on_error must be"),
    ],
)
async def test_a_wrong_way_to_write_the_status_is_found_before_the_first_reconcile(
    world: World, attribute, value, message
) -> None:
    wrong = type("Wrong", (WidgetReconciler,), {attribute: value})
    with pytest.raises(ConfigurationError, match=message):
        world.controller(wrong())


async def test_a_status_that_is_sent_by_update_has_its_subresource(world: World) -> None:
    class Elsewhere(WidgetReconciler):
        status_strategy = "update"
        status_subresource = None

    with pytest.raises(ConfigurationError, match="status_strategy='update' needs subresource='status'"):
        world.controller(Elsewhere())


async def test_owned_and_watched_kinds_are_listed_and_watched(world: World) -> None:
    rules = access(world, WidgetReconciler(), owns=["apps/v1/Deployment"], watches=[Watch("v1/Endpoints")])
    assert rules["apps:deployments"] == "get list watch"
    assert rules[":endpoints"] == "get list watch"
    assert rules["example.com:widgets/finalizers"] == "update"  # owner references that block the owner's deletion


async def test_what_is_declared_joins_what_is_needed_anyway(world: World) -> None:
    class Declaring(WidgetReconciler):
        permissions = (
            Permission("apps/v1/Deployment", "apply", "delete"),
            Permission("apps/v1/Deployment", "get", subresource="scale"),
            Permission("v1/Namespace", "get"),
        )

    rules = {(r.group, r.resource): r for r in world.controller(Declaring(), owns=["apps/v1/Deployment"]).access}
    assert rules["apps", "deployments"].verbs == ("create", "delete", "get", "list", "patch", "watch")
    assert rules["apps", "deployments/scale"].verbs == ("get",)
    assert rules["", "namespaces"] == AccessRule("", "namespaces", ("get",), namespaced=False)


async def test_kinds_of_others_named_by_text_are_marked_as_presumed(world: World) -> None:
    class Gateway(Resource, group="gateway.example.com", version="v1", plural="gatewaies", scope="Cluster"):
        """A kind with an irregular plural."""

    class Declaring(WidgetReconciler):
        permissions = (Permission("gateway.example.com/v1/Route", "get"), Permission(Gateway, "get"))

    rules = {rule.resource: rule for rule in world.controller(Declaring()).access}
    assert rules["routes"].presumed
    assert rules["gatewaies"] == AccessRule("gateway.example.com", "gatewaies", ("get",), namespaced=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("v1/ConfigMap",), "no verb is given"),
        (("v1/ConfigMap", "pathc"), "unknown verb 'pathc'"),
        (("ConfigMap", "get"), "Permission: "),
        ((Resource, "get"), "Permission: "),
    ],
)
def test_a_permission_that_cannot_be_meant_is_refused(arguments, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Permission(*arguments)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "declare" in record.getMessage()]


async def test_what_is_not_declared_is_warned_of_once_and_done(world: World, caplog) -> None:
    class Declaring(ResourceReconciler[Widget]):
        permissions = (Permission("v1/ConfigMap", "create"),)

        async def reconcile_object(self, obj, status, /) -> Outcome:
            config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": obj.name, "namespace": "ns"}}
            await self.client.create(config)
            await self.client.patch("v1/ConfigMap", obj.name, "ns", patch={"data": {"a": "b"}})
            await self.client.live.get("v1/Namespace", "ns")
            await self.client.live.list("v1/Secret", "ns")
            status.set(phase="Ready")
            return None

    await world.start(Declaring())
    with caplog.at_level(logging.WARNING, "reconciler.controller"):
        await world.widget("a")
        await world.widget("b")
        await quiet()
    warnings = warnings_of(caplog)
    assert [warning.partition(", so the role")[0] for warning in warnings] == [
        "Declaring does not declare the permission to patch configmaps",
        "Declaring does not declare the permission to get namespaces",
        "Declaring does not declare the permission to list secrets",
    ]
    assert (await world.foreign.get("v1/ConfigMap", "b", "ns")).to_dict()["data"] == {"a": "b"}
    assert (await world.read("a")).status.phase == "Ready"


@pytest.mark.parametrize("declared", [(), ("patch",), ("apply",)])
async def test_an_apply_needs_the_permission_to_create_too(world: World, caplog, declared) -> None:
    async def applies(reconciler, obj, status) -> Outcome:
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": obj.name, "namespace": "ns"}}
        await reconciler.client.apply(config, owner=obj)
        scaled = {"spec": {"replicas": 2}}
        await reconciler.client.patch("apps/v1/Deployment", "web", "ns", patch=scaled, subresource="scale")
        return None

    class Applying(WidgetReconciler):
        permissions = (Permission("v1/ConfigMap", *declared),) if declared else ()

    await world.start(Applying(applies))
    await world.widget()
    await quiet()
    warnings = warnings_of(caplog)
    apply = next((each for each in warnings if "configmaps" in each), None)
    if declared == ("apply",):
        assert apply is None
    else:
        assert apply is not None
        assert "to apply configmaps" in apply
        assert "Add Permission(KIND, 'apply') to" in apply
    (scale,) = (each for each in warnings if "scale" in each)
    assert "to patch deployments.apps/scale" in scale
    assert "Add Permission(KIND, 'patch', subresource='scale')" in scale


async def test_writes_of_the_framework_need_no_declaration(world: World, caplog) -> None:
    class Finalizing(WidgetReconciler):
        permissions = ()

        async def finalize(self, obj, status, /) -> Outcome:
            status.set(phase="Going")
            return None

    async def says(reconciler, obj, status) -> Outcome:
        reconciler.events.normal(obj, "Said", "something")
        return None

    await world.start(Finalizing(says))
    await world.widget()
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet()
    assert world.server.requests(verb="create", resource="events")
    assert not list(await world.foreign.list(Widget, "ns"))
    assert warnings_of(caplog) == []


async def test_a_reconciler_that_declares_no_permissions_is_not_compared(world: World, caplog) -> None:
    async def writes(reconciler, request: Request) -> Outcome:
        await reconciler.client.live.get("v1/Namespace", "ns")
        return None

    await world.start(KeyReconciler(writes), resource=Widget)
    await world.widget()
    await quiet()
    assert warnings_of(caplog) == []
