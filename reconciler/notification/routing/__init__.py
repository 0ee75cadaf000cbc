"""Decide where a request goes that names no channels: Alertmanager's route tree, read from a file or a ConfigMap.

Read on: `_matchers`, `_tree` (the search), `_config` (reading, with every mistake at once), `_table` (what is in
force), `_sources` (where it comes from).
"""

from reconciler.notification.routing.config import (
    Receiver,
    ReceiverConfig,
    Route,
    RoutingConfig,
    RoutingConfigError,
    read_routing,
)
from reconciler.notification.routing.matchers import Matcher, MatcherError, parse_matchers
from reconciler.notification.routing.router import RoutingObserver, RoutingStatistics, RoutingTable
from reconciler.notification.routing.sources import ConfigMapSource, FileSource

__all__ = [
    "ConfigMapSource",
    "FileSource",
    "Matcher",
    "MatcherError",
    "Receiver",
    "ReceiverConfig",
    "Route",
    "RoutingConfig",
    "RoutingConfigError",
    "RoutingObserver",
    "RoutingStatistics",
    "RoutingTable",
    "parse_matchers",
    "read_routing",
]
