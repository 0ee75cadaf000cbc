"""Serve the Kubernetes API from memory, for tests and trials.

`APIServer` turns requests into answers without sockets, so that whole controllers run against it under virtual time; on
demand it listens on loopback for kubectl and other programs. It behaves like a real API server where a controller can
notice, lets requests fail on demand (`Faults`), and remembers what was asked and by whom (`RequestLog`).

It promises: an answer follows from the requests before it, the seed and the clock alone; the cost of a request does
not grow with the number of requests before it; what it keeps of the past is bounded and what it drops is counted.
"""

from reconciler.apiserver.faults.chaos import Chaos
from reconciler.apiserver.faults.faults import EventOrder, Fault, Faults
from reconciler.apiserver.server import APIServer, ServerStatistics
from reconciler.apiserver.serving.logged_request import LoggedRequest
from reconciler.apiserver.serving.request_log import LoggedWrites, RequestLog, ServerAction

__all__ = [
    "APIServer",
    "Chaos",
    "EventOrder",
    "Fault",
    "Faults",
    "LoggedRequest",
    "LoggedWrites",
    "RequestLog",
    "ServerAction",
    "ServerStatistics",
]
