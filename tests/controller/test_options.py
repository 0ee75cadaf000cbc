"""Options of a controller: a mistake is an error at once, which says what to write."""

from __future__ import annotations

import pytest

from reconciler.controller import Reconciler, Watch
from reconciler.errors import ConfigurationError
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"owns": "apps/v1/Deployment"}, r"owns must be a sequence of kinds: \['apps/v1/Deployment'\], not 'apps"),
        ({"owns": Widget}, "owns must be a sequence of kinds"),
        ({"owns": ["Deployment"]}, "owns: 'Deployment' is not a valid kind"),
        ({"owns": [None]}, "owns: None is not a valid kind"),
        ({"owns": [Watch("Deployment")]}, "owns: 'Deployment' is not a valid kind"),
        ({"watches": ["v1/ConfigMap"]}, r"write Watch\('v1/ConfigMap', mapper=…\)"),
        ({"watches": Watch("v1/ConfigMap")}, "watches must be a sequence of Watch"),
        ({"watches": [Watch("ConfigMap")]}, "watches: 'ConfigMap' is not a valid kind"),
        ({"predicates": lambda event: True}, "predicates must be a sequence of functions"),
        ({"predicates": [True]}, "which is not a function"),
        ({"workers": "4"}, "workers must be 1 or more, not '4'"),
        ({"workers": 2.5}, "workers must be 1 or more, not 2.5"),
        ({"timeout": "30s"}, "timeout must be a number"),
        ({"resource": "widgets"}, "resource: 'widgets' is not a valid kind"),
    ],
)
async def test_invalid_option(world: World, options, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        world.controller(WidgetReconciler(), **options)


async def test_class_in_place_of_an_instance(world: World) -> None:
    with pytest.raises(ConfigurationError, match=r"give an instance, WidgetReconciler\(\)"):
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
