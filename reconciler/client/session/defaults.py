"""Hold what a client adds to the calls that do not say otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.client.session.requests import FieldValidation
from reconciler.meta import ResourceType

__all__ = ["Defaults"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """Hold the options of a client.

    Attributes:
        program: what the default field manager begins with.
        field_manager: the name that writes are recorded under; None for the default.
        field_validation: what the server does about unknown fields; None leaves it to the server, which warns.
        dry_run: every write is only checked; no call can undo that.
        namespace: the one namespace that the client speaks to; None for any.
    """

    program: str
    field_manager: str | None = None
    field_validation: FieldValidation | None = None
    dry_run: bool = False
    namespace: str | None = None

    def place(self, rt: ResourceType, namespace: str | None) -> str | None:
        """Return the namespace of a call: as given, or the client's one.

        Raises:
            ValueError: the client speaks to another namespace only.
        """
        if self.namespace is None or not rt.namespaced:
            return namespace
        if namespace and namespace != self.namespace:
            raise ValueError(
                f"this client is for namespace {self.namespace!r}, not for {rt.gvk.kind} in {namespace!r}: leave the "
                "namespace out, or use the client that it was made from"
            )
        return self.namespace
