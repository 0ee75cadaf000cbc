"""Routing of requests that name no channels, by Alertmanager's routing tree from a file or a ConfigMap."""

from reconciler.notification.routing.config import (
    Receiver,
    ReceiverConfig,
    Route,
    RoutingConfig,
    RoutingConfigError,
    read_routing,
)
from reconciler.notification.routing.matchers import Matcher, MatcherError, parse_matchers
from reconciler.notification.routing.router import ConfigMapSource, FileSource, RoutingStatistics, RoutingTable

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
    "RoutingStatistics",
    "RoutingTable",
    "parse_matchers",
    "read_routing",
]
