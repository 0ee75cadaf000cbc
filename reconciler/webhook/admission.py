"""Be what a user subclasses to admit or complete objects."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar

from reconciler.errors import APIError, ConfigurationError, ReconcilerError
from reconciler.meta import GroupVersionKind
from reconciler.objects import InvalidObject, KindLike, from_document, gvk_from, kind_argument, to_document
from reconciler.webhook.json_patch import json_patch, same
from reconciler.webhook.review import AdmissionRequest, Operation, Verdict

__all__ = ["Admission", "Defaulter", "Denied", "Validator", "Warnings"]

Warnings = Sequence[str] | None
"""Sentences that the person who asked is shown, although it is allowed."""

R = TypeVar("R", default=Any)


class Denied(ReconcilerError):
    """Refuse what was asked for.

    Args:
        message: for the person who asked: what is wrong, and what to do.
        code: the HTTP status that they get. Default 403.
        reason: the machine's word for it. Default ``"Forbidden"``.
        causes: what is wrong where: pairs of a field such as ``"spec.size"`` and a message. With them code and reason
            default to 422 and ``"Invalid"``.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        reason: str | None = None,
        causes: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code or (422 if causes else 403)
        self.reason = reason or ("Invalid" if causes else "Forbidden")
        self.causes = tuple(causes)

    def verdict(self) -> Verdict:
        """Return the refusal."""
        causes = [{"reason": "FieldValueInvalid", "field": field, "message": text} for field, text in self.causes]
        return Verdict(
            allowed=False,
            code=self.code,
            reason=self.reason,
            message=str(self),
            details={"causes": causes} if causes else None,
        )


class Admission(Generic[R]):
    """Be the base of `Validator` and `Defaulter`; use those.

    Attributes:
        resource: the kind: by default the type argument; for kinds without a class give it as a class keyword, as in
            ``class Pods(Validator[Unstructured], resource="v1/Pod")``.
        path: where it is served. Default: ``/validate-<group>-<version>-<kind>`` or ``/mutate-…``, dots as dashes, as
            in controller-runtime.
        operations: what the API server asks about.
        subresources: which subresources beside the object itself, such as ``"scale"``. Default: none.
    """

    resource: ClassVar[KindLike | None] = None
    path: ClassVar[str | None] = None
    operations: ClassVar[Sequence[Operation]] = ("CREATE", "UPDATE")
    subresources: ClassVar[Sequence[str]] = ()
    verb: ClassVar[str] = ""

    def __init_subclass__(cls, *, resource: KindLike | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        declared = resource or kind_argument(cls, Admission)
        if declared is not None:
            cls.resource = declared

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the kind.

        Raises:
            ConfigurationError: none is named.
        """
        if self.resource is None:
            raise ConfigurationError(
                f"{type(self).__name__} names no kind: write {self._base()}[Database], or give resource="
            )
        return gvk_from(self.resource)

    @property
    def served_at(self) -> str:
        """Return the path."""
        if self.path is not None:
            return self.path
        gvk = self.gvk
        return f"/{self.verb}-{gvk.group.replace('.', '-')}-{gvk.version}-{gvk.kind.lower()}"

    async def review(self, request: AdmissionRequest) -> Verdict:
        """Answer a request; see the subclasses. Cancellation answers nothing."""
        raise NotImplementedError

    def _object(self, document: Any) -> Any:
        return from_document(self.resource, document)  # type: ignore[arg-type]

    @classmethod
    def _base(cls) -> str:
        return "Validator" if cls.verb == "validate" else "Defaulter"


class Validator(Admission[R]):
    """Say whether objects may be created, changed or deleted: override any of the three methods.

    A method returns warnings or None, and raises `Denied` to refuse. Typed errors of the API (`Conflict`, `Forbidden`
    and others) are passed on with their code; everything else that is raised is logged, and refuses with code 500.
    """

    verb: ClassVar[str] = "validate"

    def validate_create(self, obj: R, request: AdmissionRequest, /) -> Warnings | Awaitable[Warnings]:  # noqa: ARG002
        """Say whether an object may be created."""
        return None

    def validate_update(self, old: R, new: R, request: AdmissionRequest, /) -> Warnings | Awaitable[Warnings]:  # noqa: ARG002
        """Say whether an object may be changed."""
        return None

    def validate_delete(self, obj: R, request: AdmissionRequest, /) -> Warnings | Awaitable[Warnings]:  # noqa: ARG002
        """Say whether an object may be deleted; asked when ``"DELETE"`` is in `operations`."""
        return None

    async def review(self, request: AdmissionRequest) -> Verdict:
        """Call the method for the operation. Cancellation answers nothing."""
        document = request.document
        try:
            match request.operation:
                case "CREATE":
                    found = self.validate_create(self._object(document.get("object")), request)
                case "UPDATE":
                    old, new = self._object(document.get("oldObject")), self._object(document.get("object"))
                    found = self.validate_update(old, new, request)
                case "DELETE":
                    found = self.validate_delete(self._object(document.get("oldObject")), request)
                case _:
                    return Verdict(allowed=True)
            warnings = await found if inspect.isawaitable(found) else found
        except (Denied, APIError, InvalidObject) as error:
            return refusal(error)
        return Verdict(allowed=True, warnings=tuple(warnings or ()))


class Defaulter(Admission[R]):
    """Complete objects before they are validated and stored: override `default`.

    It is not asked about deletions, whatever `operations` says. Fields that the model does not know are kept.
    """

    verb: ClassVar[str] = "mutate"

    def default(self, obj: R, request: AdmissionRequest, /) -> Warnings | Awaitable[Warnings]:
        """Change the object in place; may be called again for what it has completed already.

        Returns:
            Warnings, or None.

        Raises:
            Denied: to refuse the object.
        """
        raise NotImplementedError(f"{type(self).__name__} has no default")

    async def review(self, request: AdmissionRequest) -> Verdict:
        """Call `default` and answer what it changed. Cancellation answers nothing."""
        document = request.document.get("object")
        if request.operation not in ("CREATE", "UPDATE") or not isinstance(document, dict):
            return Verdict(allowed=True)
        try:
            obj = self._object(copy.deepcopy(document))  # an Unstructured changes what it was read from
            before = to_document(obj)
            found = self.default(obj, request)
            warnings = await found if inspect.isawaitable(found) else found
        except (Denied, APIError, InvalidObject) as error:
            return refusal(error)
        # Only what `default` changed: what the model adds in writing the object down is nobody's wish.
        return Verdict(allowed=True, warnings=tuple(warnings or ()), patch=_onto(document, before, to_document(obj)))


def refusal(error: Exception) -> Verdict:
    """Return what an error of a reviewer answers."""
    if isinstance(error, Denied):
        return error.verdict()
    if isinstance(error, APIError):
        return Verdict(allowed=False, code=error.status, reason=error.reason or "Forbidden", message=error.message)
    return Verdict(allowed=False, code=422, reason="Invalid", message=str(error))


def _onto(document: dict[str, Any], before: Any, after: Any) -> list[dict[str, Any]]:
    """Return the patch on the document that was sent for a change of the object that was read from it."""
    changed = _laid_over(document, before, after)
    return json_patch(document, changed)


def _laid_over(document: Any, before: Any, after: Any) -> Any:
    if not (isinstance(document, dict) and isinstance(before, dict) and isinstance(after, dict)):
        return document if same(before, after) else after
    result = dict(document)
    for key in before.keys() - after.keys():
        result.pop(key, None)
    for key, value in after.items():
        if key not in before:
            result[key] = value
        elif not same(before[key], value):
            result[key] = _laid_over(document.get(key), before[key], value)
    return result
