"""Describe one HTTP exchange without saying how it travels.

`HTTPRequest` goes in, `HTTPResponse` comes out of a `Transport`. The client speaks to anything with ``send``: the
embedded API server in this process, or a session of sockets.
"""

from reconciler.http.exchange import HTTPRequest, HTTPResponse, Transport, parse_retry_after
from reconciler.http.lines import LineSplitter

__all__ = ["HTTPRequest", "HTTPResponse", "LineSplitter", "Transport", "parse_retry_after"]
