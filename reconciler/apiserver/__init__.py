"""An in-memory Kubernetes API server for tests and trials.

`APIServer` turns requests into responses without sockets, so that whole controllers run against it under virtual time;
on demand it listens on loopback for kubectl and other programs. It behaves like a real API server wherever a controller
can notice, makes requests fail on demand (`Fault`), and logs who asked for what (`RequestLog`).

Guarantees: a response follows from the requests before it, the seed and the clock alone. The cost of a request does not
grow with the number of requests before it. What is kept of the past is bounded, and what is dropped is counted.
"""

from reconciler.apiserver.faults import Fault
from reconciler.apiserver.server import APIServer
from reconciler.apiserver.serving.request_log import LoggedRequest, RequestLog

__all__ = [
    "APIServer",
    "Fault",
    "LoggedRequest",
    "RequestLog",
]
