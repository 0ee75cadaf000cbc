"""Options of a controller: a mistake is an error at once, which says what to write."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from reconciler.controller import (
    ChannelSource,
    ControllerOptions,
    Permission,
    Predicate,
    Reconciler,
    ResourceReconciler,
    Watch,
    labels_changed,
)
from reconciler.errors import ConfigurationError
from reconciler.manager import Manager
from reconciler.meta import Request
from reconciler.objects import Unstructured
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World


async def asking(_: object) -> bool:
    return False


@pytest.mark.parametrize("make", [Predicate, Predicate.of_object, Predicate.of_update])
def test_async_predicate_is_refused(make: Callable[[object], Predicate]) -> None:
    with pytest.raises(ConfigurationError, match="the predicate asking is async"):
        make(asking)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"owns": "apps/v1/Deployment"}, r"owns must be a sequence of kinds: \['apps/v1/Deployment'\], not 'apps"),
        ({"owns": Widget}, "owns must be a sequence of kinds"),
        ({"owns": ["Deployment"]}, "owns: 'Deployment' is not a valid kind"),
        ({"owns": ["apps/Deployment"]}, "owns: 'apps/Deployment' is not a valid kind: write 'group/version/Kind'"),
        ({"owns": [None]}, "owns: None is not a valid kind"),
        ({"owns": [Watch("Deployment")]}, "owns: 'Deployment' is not a valid kind"),
        ({"watches": ["v1/ConfigMap"]}, r"write Watch\('v1/ConfigMap', mapper=…\)"),
        ({"watches": Watch("v1/ConfigMap")}, "watches must be a sequence of Watch"),
        ({"watches": [Watch("ConfigMap")]}, "watches: 'ConfigMap' is not a valid kind"),
        ({"predicates": lambda event: True}, "predicates must be a sequence of functions"),
        ({"predicates": [True]}, "which is not a function"),
        ({"predicates": [asking]}, "the predicate asking is async: predicates are plain functions of the event"),
        (
            {"watches": [Watch("v1/ConfigMap", predicates=[asking])]},
            "watch of v1/ConfigMap: the predicate asking is as",
        ),
        ({"owns": [Watch("v1/ConfigMap", predicates=["x"])]}, "watch of v1/ConfigMap: predicates contains 'x', which"),
        ({"watches": [Watch("v1/ConfigMap", predicates=labels_changed)]}, "predicates must be a sequence of functions"),
        ({"workers": "4"}, "workers must be 1 or more, not '4'"),
        ({"workers": 2.5}, "workers must be 1 or more, not 2.5"),
        ({"timeout": "0s"}, "timeout must be seconds above 0, a timedelta or a text such as"),
        ({"resource": "widgets"}, "resource: 'widgets' is not a valid kind"),
        ({"resource": "v1/Pod"}, "resource='v1/Pod' is not the kind of WidgetReconciler, which is"),
    ],
)
async def test_invalid_option(world: World, options, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        world.controller(WidgetReconciler(), **options)


@pytest.mark.parametrize("permissions", ["v1/ConfigMap", ["v1/ConfigMap"], Permission("v1/ConfigMap", "apply")])
async def test_permissions_of_another_form(world: World, permissions) -> None:
    class Permitted(WidgetReconciler):
        pass

    Permitted.permissions = permissions
    with pytest.raises(ConfigurationError, match=r"permissions must be a sequence of Permission objects: \[Permission"):
        world.controller(Permitted())


@pytest.mark.parametrize("size", [0, -1, 2.5, True, None])
async def test_invalid_pool_size(world: World, size) -> None:
    class Pooled(WidgetReconciler):
        def pool_size(self, workers, /):
            return size

    with pytest.raises(ConfigurationError, match=f"the result of pool_size must be 1 or more, not {size}"):
        world.controller(Pooled())


async def test_class_in_place_of_an_instance(world: World) -> None:
    with pytest.raises(ConfigurationError, match=r"pass an instance, WidgetReconciler\(\)"):
        world.controller(WidgetReconciler)  # type: ignore[arg-type]


async def test_not_a_reconciler(world: World) -> None:
    with pytest.raises(ConfigurationError, match="'reconcile' is not a reconciler"):
        world.controller("reconcile")  # type: ignore[arg-type]


async def test_every_form_of_a_kind_is_accepted(world: World) -> None:
    made = world.controller(
        KeyReconciler(), resource=Widget.gvk, owns=[Widget, Widget.gvk, Watch("v1/Pod")], watches=(Watch(Widget),)
    )
    assert made.name == "widget"
    assert isinstance(made.reconciler, Reconciler)


async def test_controllers_share_options(world: World) -> None:
    patient = ControllerOptions(workers=4, timeout="5m")
    made = world.controller(WidgetReconciler(), **patient | ControllerOptions(name="shared"))
    assert (made.name, made.statistics().workers) == ("shared", 4)


async def test_a_name_is_taken(world: World) -> None:
    manager = Manager(world.client)
    manager.add_controller(WidgetReconciler(), name="mine")
    with pytest.raises(ConfigurationError, match="a controller named 'mine' already exists"):
        manager.add_controller(WidgetReconciler(), name="mine")


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("worker", "unknown option 'worker' of a controller; the options are resource, name, owns"),
        ("max_concurrent_reconciles", "unknown option 'max_concurrent_reconciles' .*; it is called 'workers' here"),
        ("options", r"pass them as keywords: add_controller\(reconciler, \*\*options\)"),
        ("finalizer", "the class states it: write 'finalizer = …' in the body of WidgetReconciler"),
        ("on_error", "the class states it: write 'status_on_error = …' in the body of WidgetReconciler"),
    ],
)
async def test_a_keyword_that_is_not_an_option_says_what_to_write(world: World, keyword: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Manager(world.client).add_controller(WidgetReconciler(), **{keyword: ControllerOptions()})  # type: ignore[misc]


@pytest.mark.virtual_time
async def test_options_given_as_iterators_are_used(world: World) -> None:
    queue: asyncio.Queue[Request] = asyncio.Queue()
    reconciler = KeyReconciler()
    manager = Manager(world.client)
    controller = manager.add_controller(
        reconciler,
        resource=Widget,
        owns=iter(["v1/Pod"]),
        watches=(Watch(kind) for kind in ["v1/ConfigMap"]),
        sources=map(ChannelSource, [queue]),
        predicates=filter(None, [lambda event: event.object.name != "ignored"]),
    )
    async with manager.running():
        await world.widget("ignored")
        await world.widget("w")
        queue.put_nowait(Request("from-the-queue", "ns"))
        await asyncio.sleep(1)
    assert sorted(reconciler.keys) == ["ns/from-the-queue", "ns/w"]
    assert {"pods", "configmaps"} <= {rule.resource for rule in controller.access}


@pytest.mark.parametrize(
    ("name", "option"),
    [("workers", "workers"), ("owns", "owns"), ("timeout", "timeout"), ("max_concurent_reconciles", "workers")],
)
async def test_an_option_as_an_attribute_of_the_class_is_warned_of(
    world: World, caplog: pytest.LogCaptureFixture, name: str, option: str
) -> None:
    Manager(world.client).add_controller(type("Widgets", (WidgetReconciler,), {name: 4})())
    warning = f"Widgets.{name} is not read: pass add_controller(…, {option}=…). If it is your own, call it '_{name}'"
    assert f"controller 'widget': {warning}" in caplog.messages


async def test_names_of_options_that_are_no_attributes_are_left_alone(world: World) -> None:
    @dataclasses.dataclass
    class Pages(KeyReconciler):
        timeout: float = 5.0

    class Widgets(WidgetReconciler):
        name = "mine"
        _max_concurrent_reconciles = 4

        def __init__(self) -> None:
            super().__init__()
            self.timeout = 5

        @property
        def workers(self) -> int:
            return 3

    assert Manager(world.client).add_controller(Widgets()).name == "widget"
    assert Manager(world.client).add_controller(Pages(timeout=3.0), resource=Widget).name == "widget"


async def test_the_kind_stands_in_one_place(world: World) -> None:
    class Named(ResourceReconciler[Unstructured], resource="example.com/v1/Widget"):
        async def reconcile_object(self, obj, status, /):
            return None

    for reconciler in (Named(), WidgetReconciler()):
        with pytest.raises(ConfigurationError, match=r"resource='v1/Pod' is not the kind of .*, which is example.com"):
            world.controller(reconciler, resource="v1/Pod")
    with pytest.raises(TypeError, match=r"Maps.resource: the kind stands in the header of the class: write class Maps"):
        type("Maps", (ResourceReconciler,), {"resource": "v1/ConfigMap"})


async def test_one_reconciler_for_two_controllers_is_refused(world: World) -> None:
    manager = Manager(world.client)
    reconciler = WidgetReconciler()
    manager.add_controller(reconciler)
    with pytest.raises(ConfigurationError, match="this WidgetReconciler already belongs to the controller 'widget'"):
        manager.add_controller(reconciler, name="again")
