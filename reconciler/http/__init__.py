"""Describe one HTTP exchange without saying how it travels.

`HTTPRequest` goes in, `HTTPResponse` comes out of a `Transport`. The client speaks to anything with ``send``: the
embedded API server in this process, or a session of sockets.
"""

from reconciler.http._exchange import HTTPRequest, HTTPResponse, Transport, parse_retry_after

__all__ = ["HTTPRequest", "HTTPResponse", "Transport", "parse_retry_after"]
