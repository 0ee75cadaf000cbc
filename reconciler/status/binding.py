"""The selection of the writer for a client, by the attributes and the module of its class.

None of the libraries of clients is imported here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from types import MethodType
from typing import Any

import msgspec

from reconciler._core.field_managers import check_field_manager, default_field_manager, program_name
from reconciler.status.clients import (
    AsyncioClientWriter,
    AsyncKr8sWriter,
    AsyncLightkubeWriter,
    BlockingClientWriter,
    BlockingWriter,
    Kr8sWriter,
    LightkubeWriter,
    OfficialWriter,
)
from reconciler.status.kopf import KopfPatch
from reconciler.status.writer import StatusWriter, SyncStatusWriter


class ClientBinding(msgspec.Struct, frozen=True):
    """A writer, and how to call it.

    Attributes:
        writer: a `StatusWriter` or a `SyncStatusWriter`.
        is_async: whether it is a `StatusWriter`, for ``async with``. None: both kinds of block are valid.
        kopf: the writer again, if kopf does the writing.
    """

    writer: Any
    is_async: bool | None
    kopf: KopfPatch | None = None


def bind(
    api: Any,
    obj_or_kind: object,
    document: Mapping[str, Any] | None,
    *,
    name: str | None,
    namespace: str | None,
    field_manager: str | None,
    timeout: float,
) -> ClientBinding:
    """Choose the writer for an object over a client.

    Args:
        api: a client of this library, a writer, an ApiClient or ``*Api`` of an official client, a client of lightkube
            or kr8s, or kopf's patch.
        obj_or_kind: the object, or its kind.
        document: the object; None for a kind.
        name: the object's name, with a kind.
        namespace: its namespace, with a kind.
        field_manager: for clients that do not have one; None for the default.
        timeout: seconds for one request over a client of another library.

    Raises:
        TypeError: the client is unknown, or object and name do not go together.
        ValueError: an API server would refuse the field manager.
    """
    if (document is None) != (name is not None):
        raise TypeError(
            "pass an object, or a kind with name= and namespace="
            if name is None
            else "an object has its own name: name= and namespace= are for a kind only"
        )
    if hasattr(api, "status_writer"):
        return _of_writer(api.status_writer(obj_or_kind, name=name, namespace=namespace))
    if _is_kopf_patch(type(api)):  # type: ignore[arg-type]  # every class is hashable
        patch = KopfPatch(api, obj_or_kind)
        return ClientBinding(patch, None, patch)
    if hasattr(api, "read") and hasattr(api, "write") and hasattr(api, "request") and hasattr(api, "identity"):
        return _of_writer(api)
    api_client = getattr(api, "api_client", api)
    make = _writer_class(type(api_client))  # type: ignore[arg-type]  # every class is hashable
    if make is not None:
        writer = make(
            api_client,
            obj_or_kind,
            document,
            name=name,
            namespace=namespace,
            field_manager=check_field_manager(field_manager) or default_field_manager(program_name()),
            timeout=timeout,
        )
        return ClientBinding(writer, not issubclass(make, BlockingWriter))
    raise TypeError(
        f"StatusBatcher does not support the client {type(api).__module__}.{type(api).__qualname__}: pass a "
        "reconciler.Client, an ApiClient or an *Api of kubernetes, kubernetes.aio or kubernetes_asyncio, a client of "
        "lightkube or kr8s, the patch of a kopf handler, or a StatusWriter"
    )


@functools.lru_cache(maxsize=64)
def _writer_class(client_class: type) -> type[OfficialWriter] | None:
    """Return the writer over a client of another library; None if it is none of those that are known."""
    for cls in client_class.__mro__:
        for name, modules, writer in _WRITERS:
            if cls.__name__ == name and f"{cls.__module__}.".startswith(modules):
                return writer
    return None


_WRITERS: tuple[tuple[str, tuple[str, ...], type[OfficialWriter]], ...] = (
    ("ApiClient", ("kubernetes_asyncio.", "kubernetes.aio."), AsyncioClientWriter),
    ("ApiClient", ("kubernetes.",), BlockingClientWriter),
    ("AsyncClient", ("lightkube.",), AsyncLightkubeWriter),
    ("Client", ("lightkube.",), LightkubeWriter),
    ("Api", ("kr8s._api.",), AsyncKr8sWriter),
    ("Api", ("kr8s.",), Kr8sWriter),
)
"""The names of classes of clients, the beginnings of their modules, and the writers over them."""


@functools.lru_cache(maxsize=64)
def _is_kopf_patch(client_class: type) -> bool:
    """Return whether this is the class of a kopf handler's ``patch``."""
    return any(cls.__name__ == "Patch" and cls.__module__.startswith("kopf.") for cls in client_class.__mro__)


_is_coroutine_function = functools.lru_cache(maxsize=256)(inspect.iscoroutinefunction)
"""Called for each batcher, with the same few functions."""


def _of_writer(writer: StatusWriter | SyncStatusWriter) -> ClientBinding:
    write = writer.write
    return ClientBinding(writer, _is_coroutine_function(write.__func__ if isinstance(write, MethodType) else write))
