"""The selection of the status writer for the client that a batcher was given.

Clients are recognized by their attributes and by the module of their class; none of their libraries is imported here.
"""

from __future__ import annotations

import functools
import inspect
from types import MethodType
from typing import Any

import msgspec

from reconciler._core.field_managers import (
    FORMER_FIELD_MANAGER,
    check_field_manager,
    default_field_manager,
    program_name,
)
from reconciler.status.clients.kopf import KopfPatch, is_kopf_patch
from reconciler.status.clients.official import (
    AsyncioClientWriter,
    BlockingClientWriter,
    ObjectEndpoint,
    OfficialWriter,
)
from reconciler.status.flush.effects import Target
from reconciler.status.record.conversion import is_kind
from reconciler.status.writer import StatusWriter, Strategy, SyncStatusWriter

__all__ = ["Binding", "bind"]


class Binding(msgspec.Struct, frozen=True):
    """A writer, and how to call it.

    Attributes:
        writer: a `StatusWriter` or a `SyncStatusWriter`.
        is_async: whether it is a `StatusWriter`, for ``async with``. None: both kinds of block are valid.
        kopf: the writer again, if kopf does the writing.
    """

    writer: Any
    is_async: bool | None
    kopf: KopfPatch | None = None

    @property
    def target(self) -> Target:
        """Return the object and the client as a flush needs them."""
        return Target(self.writer.gvk, self.writer.request, self.writer)

    def check_strategy(self, strategy: Strategy) -> None:
        """Check that the client can send a strategy.

        Raises:
            ValueError: it cannot.
        """
        if self.kopf is not None and strategy != "merge":
            raise ValueError(
                f"inside kopf the write is a JSON patch of kopf's, conditional on a version: strategy={strategy!r} "
                "needs a client"
            )
        if strategy == "update" and isinstance(self.writer, OfficialWriter):
            raise ValueError(
                "strategy='update' needs a reconciler.Client: the official clients repeat a PUT by themselves when a "
                "connection breaks, and the second one conflicts with the first"
            )


def bind(
    api: Any,
    obj_or_kind: object,
    *,
    name: str | None,
    namespace: str | None,
    field_manager: str | None,
    timeout: float,
) -> Binding:
    """Return the writer for an object over a client.

    Args:
        api: a client of this library, a writer, an ApiClient or ``*Api`` of an official client, or kopf's patch.
        obj_or_kind: the object, or its kind.
        name: the object's name, with a kind.
        namespace: its namespace, with a kind.
        field_manager: for official clients, which do not have one; None for the default.
        timeout: seconds for one request over an official client.

    Raises:
        TypeError: the client is unknown, or object and name do not go together.
        ValueError: an API server would refuse the field manager.
    """
    if is_kind(obj_or_kind) != (name is not None):
        raise TypeError(
            "pass an object, or a kind with name= and namespace="
            if name is None
            else "an object has its own name: name= and namespace= are for a kind only"
        )
    if hasattr(api, "status_writer"):
        return _of_writer(api.status_writer(obj_or_kind, name=name, namespace=namespace))
    if is_kopf_patch(api):
        patch = KopfPatch(api, obj_or_kind)
        return Binding(patch, None, patch)
    if all(hasattr(api, attribute) for attribute in ("read", "write", "request", "identity")):
        return _of_writer(api)
    api_client = getattr(api, "api_client", api)
    is_async = _is_async(api_client)
    if is_async is not None:
        manager = check_field_manager(field_manager) or default_field_manager(program_name())
        endpoint = ObjectEndpoint(
            api_client.configuration.host, obj_or_kind, name=name, namespace=namespace, field_manager=manager
        )
        make = AsyncioClientWriter if is_async else BlockingClientWriter
        writer = make(api_client, endpoint, field_manager=manager, timeout=timeout)
        if field_manager is None:
            writer.former_field_manager = FORMER_FIELD_MANAGER
        return Binding(writer, is_async)
    raise TypeError(
        f"StatusBatcher does not support the client {type(api).__module__}.{type(api).__qualname__}: pass a "
        "reconciler.Client, an ApiClient or an *Api of kubernetes, kubernetes.aio or kubernetes_asyncio, the patch of "
        "a kopf handler, or a StatusWriter"
    )


def _is_async(api_client: Any) -> bool | None:
    """Return whether this is an asynchronous official client; None if it is not an official client."""
    for cls in type(api_client).__mro__:
        if cls.__name__ == "ApiClient":
            if cls.__module__.startswith(("kubernetes_asyncio.", "kubernetes.aio.")):
                return True
            if cls.__module__.startswith("kubernetes."):
                return False
    return None


_is_coroutine_function = functools.lru_cache(maxsize=256)(inspect.iscoroutinefunction)
"""Called for each batcher, with the same few functions."""


def _of_writer(writer: StatusWriter | SyncStatusWriter) -> Binding:
    write = writer.write
    return Binding(writer, _is_coroutine_function(write.__func__ if isinstance(write, MethodType) else write))
