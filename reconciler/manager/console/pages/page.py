"""A page of the console, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from htpy import Node

from reconciler._core.wire import JSONObject

__all__ = ["Page"]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the console.

    Attributes:
        path: its path, such as ``"/receivers"``.
        title: its title, also in the navigation.
        body: returns its content as an htpy node, from the state of the process and the query of the request. It is
            called every second while somebody looks, on the event loop, so it must be quick.
        query: returns which keys the state has, for the query of the request; see `read_keys`. Default: those that fail
            or hang.
        limit: the number of keys per controller. Default 20.
        in_navigation: whether the navigation has it. Default True.
    """

    path: str
    title: str
    body: Callable[[JSONObject, Mapping[str, str]], Node]
    query: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda _: {"state": "attention"}
    limit: int = 20
    in_navigation: bool = True
