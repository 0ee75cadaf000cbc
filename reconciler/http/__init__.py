"""The types of an HTTP exchange, for any transport.

A `Transport` takes an `HTTPRequest` and returns an `HTTPResponse`. The client uses anything with ``send``: the embedded
API server in the same process, or connections over sockets.
"""

from reconciler.http.exchange import HTTPRequest, HTTPResponse, LineSplitter, Transport, parse_retry_after

__all__ = ["HTTPRequest", "HTTPResponse", "LineSplitter", "Transport", "parse_retry_after"]
