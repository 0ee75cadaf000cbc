"""The same receivers as Alertmanager's amtool, for generated trees; `record_routing` recorded its results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.notification.routing_config import RoutingConfigError, read_routing
from tests.notification.record_routing import GOLDEN

TREES: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(len(TREES)))
def test_a_request_reaches_the_receivers_that_amtool_names(number: int) -> None:
    tree = TREES[number]
    if tree["asked"][0][1] is None:
        with pytest.raises(RoutingConfigError):
            read_routing(tree["config"], kinds={})
        return
    config = read_routing(tree["config"], kinds={})
    for given, answer in tree["asked"]:
        assert config.route.receivers(given) == tuple(dict.fromkeys(answer)), f"{given}\n{tree['config']}"
