"""The base classes of webhooks: `Validator` and `Defaulter` for admission, `Converter` for the versions of a kind."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, get_args

from typing_extensions import TypeVar

from reconciler._core.user_code import check_hooks, own_members
from reconciler._core.wire import JSONObject
from reconciler.errors import APIError, ConfigurationError, ReconcilerError
from reconciler.meta import GroupVersionKind
from reconciler.objects import InvalidObject
from reconciler.objects.kinds import KindLike, from_document, gvk_from, kind_argument, to_document
from reconciler.objects.resource import merge_changes
from reconciler.webhook.review import AdmissionRequest, Operation, ReviewVerdict

Warnings = Sequence[str] | None
"""Messages that the user sees although the request is allowed."""

R = TypeVar("R", default=Any)
_VALIDATED = {"CREATE": ("object",), "UPDATE": ("oldObject", "object"), "DELETE": ("oldObject",)}


class Denied(ReconcilerError):
    """Raised by a webhook to deny a request.

    Args:
        message: tells the user what is wrong and what to do.
        code: the HTTP status of the response. Default 403.
        reason: the machine-readable reason. Default ``"Forbidden"``.
        causes: pairs of an invalid field, such as ``"spec.size"``, and a message. With causes, code and reason default
            to 422 and ``"Invalid"``; kubectl prints the causes instead of the message.
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

    def verdict(self, request: AdmissionRequest, kind: GroupVersionKind) -> ReviewVerdict:
        """Return the verdict that denies a request for an object of a kind; with causes, its details name both."""
        causes = [{"reason": "FieldValueInvalid", "field": field, "message": text} for field, text in self.causes]
        # kubectl prints the causes of one document, and only the message if it applies several.
        told = [f"{field}: {text}" for field, text in self.causes if text not in str(self)]
        message = ": ".join(filter(None, [str(self), ", ".join(told)]))
        about = {"name": request.name, "group": kind.group, "kind": kind.kind, "causes": causes}
        details = about if causes else None
        return ReviewVerdict(allowed=False, code=self.code, reason=self.reason, message=message, details=details)


class AdmissionWebhook(Generic[R]):
    """The base class of `Validator` and `Defaulter`; subclass one of those instead.

    Attributes:
        resource: the kind. Default: the type argument. For kinds without a class use a class keyword, as in
            ``class Pods(Validator[Unstructured], resource="v1/Pod")``.
        path: the path. Default: ``/validate-<group>-<version>-<kind>`` or ``/mutate-…``, with dots replaced by dashes,
            as in controller-runtime.
        operations: the operations that the API server sends. Default: CREATE and UPDATE. A deletion is sent only if
            ``"DELETE"`` is one of them.
        subresources: subresources that it sends besides the object itself, such as ``"scale"``. Default: none.

    Raises:
        TypeError: where a subclass is defined: a method or an attribute looks like a misspelled one, a method would
            never be called or not with its arguments, or `operations` is invalid.
    """

    resource: ClassVar[KindLike | None] = None
    path: ClassVar[str | None] = None
    operations: ClassVar[Sequence[Operation]] = ("CREATE", "UPDATE")
    subresources: ClassVar[Sequence[str]] = ()
    verb: ClassVar[str] = ""

    def __init_subclass__(cls, *, resource: KindLike | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        declared = resource or kind_argument(cls, AdmissionWebhook)
        if declared is not None:
            cls.resource = declared
        given: Any = cls.operations
        if isinstance(given, str) or not isinstance(given, Sequence) or not set(given) <= set(get_args(Operation)):
            raise TypeError(
                f"{cls.__name__}.operations must be a sequence of 'CREATE', 'UPDATE', 'DELETE' and 'CONNECT', "
                f"not {given!r}"
            )

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the kind.

        Raises:
            ConfigurationError: no kind is given.
        """
        if self.resource is None:
            raise ConfigurationError(
                f"{type(self).__name__} has no kind: write {self._base()}[Database], or pass resource="
            )
        return gvk_from(self.resource)

    @property
    def served_at(self) -> str:
        """Return the path."""
        if self.path is not None:
            return self.path
        gvk = self.gvk
        return f"/{self.verb}-{gvk.group.replace('.', '-')}-{gvk.version}-{gvk.kind.lower()}"

    def reviews(self, request: AdmissionRequest) -> bool:
        """Return whether the request has one of `operations`, on the object itself or on one of `subresources`."""
        return request.operation in self.operations and (
            not request.subresource or not {request.subresource, "*"}.isdisjoint(self.subresources)
        )

    async def review(self, request: AdmissionRequest) -> ReviewVerdict:
        """Review a request; see the subclasses. Cancellation leaves the request unanswered."""
        raise NotImplementedError

    def _object(self, document: Any) -> Any:
        return from_document(self.resource, document)  # type: ignore[arg-type]

    def _denial(self, error: Denied | APIError | InvalidObject, request: AdmissionRequest) -> ReviewVerdict:
        if isinstance(error, Denied):
            return error.verdict(request, self.gvk)
        if isinstance(error, APIError):
            return ReviewVerdict(
                allowed=False, code=error.status, reason=error.reason or "Forbidden", message=error.message
            )
        return ReviewVerdict(allowed=False, code=422, reason="Invalid", message=str(error))

    @classmethod
    def _base(cls) -> str:
        return "Validator" if cls.verb == "validate" else "Defaulter"


class Validator(AdmissionWebhook[R]):
    """A validating webhook: override any of the three methods.

    A method returns warnings or None, or raises `Denied`. A typed error of the API, such as `Conflict`, denies the
    request with its own code. Any other exception is logged and denies the request with code 500.
    """

    verb: ClassVar[str] = "validate"

    def __init_subclass__(cls, **keywords: Any) -> None:
        methods = {f"validate_{verb.lower()}": verb for verb in ("CREATE", "UPDATE", "DELETE")}
        super().__init_subclass__(**keywords)
        check_hooks(cls, Validator, {name: name for name in methods})
        for name in own_members(cls, Validator):
            if name in methods and methods[name] not in cls.operations:
                raise TypeError(
                    f"{cls.__name__}.{name} would never be called: {methods[name]!r} is not in operations, "
                    f"which is {tuple(cls.operations)!r}"
                )

    def validate_create(self, obj: R, request: AdmissionRequest, /) -> Warnings | Awaitable[Warnings]:  # noqa: ARG002
        """Validate the creation of an object; allowed by default."""
        return None

    def validate_update(self, old: R, new: R, request: AdmissionRequest, /) -> Warnings | Awaitable[Warnings]:  # noqa: ARG002
        """Validate an update of an object; allowed by default."""
        return None

    def validate_delete(self, obj: R, request: AdmissionRequest, /) -> Warnings | Awaitable[Warnings]:  # noqa: ARG002
        """Validate a deletion; called only if ``"DELETE"`` is in `operations`. Allowed by default."""
        return None

    async def review(self, request: AdmissionRequest) -> ReviewVerdict:
        """Call the method for the operation. Cancellation leaves the request unanswered."""
        sent = _VALIDATED.get(request.operation)
        if sent is None:
            return ReviewVerdict(allowed=True)
        validate = getattr(self, f"validate_{request.operation.lower()}")
        try:
            found = validate(*(self._object(request.document.get(part)) for part in sent), request)
            warnings = await found if inspect.isawaitable(found) else found
        except (Denied, APIError, InvalidObject) as error:
            return self._denial(error, request)
        return ReviewVerdict(allowed=True, warnings=tuple(warnings or ()))


class Defaulter(AdmissionWebhook[R]):
    """A mutating webhook that sets defaults before objects are validated and stored: override `default`.

    It is never called for deletions, even if `operations` contains them. Fields that the model does not know are kept.
    """

    verb: ClassVar[str] = "mutate"

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        check_hooks(cls, Defaulter, {"default": "default"})

    def default(self, obj: R, request: AdmissionRequest, /) -> Warnings | Awaitable[Warnings]:
        """Set defaults in place. It must be idempotent: the API server may send the same object again.

        Returns:
            Warnings, or None.

        Raises:
            Denied: to deny the request.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement default()")

    async def review(self, request: AdmissionRequest) -> ReviewVerdict:
        """Call `default` and return its changes as a patch. Cancellation leaves the request unanswered."""
        document = request.document.get("object")
        if request.operation not in ("CREATE", "UPDATE") or not isinstance(document, dict):
            return ReviewVerdict(allowed=True)
        try:
            obj = self._object(copy.deepcopy(document))  # an Unstructured shares the document it is made from
            before = to_document(obj)
            found = self.default(obj, request)
            warnings = await found if inspect.isawaitable(found) else found
        except (Denied, APIError, InvalidObject) as error:
            return self._denial(error, request)
        # Only the changes of `default`, not what the model adds when it is serialized.
        changed = merge_changes(document, before, to_document(obj))
        return ReviewVerdict(allowed=True, warnings=tuple(warnings or ()), changed=changed)


Step = Callable[[JSONObject], JSONObject | None]
"""A function that changes a document in place or returns another one. ``apiVersion`` is set afterwards."""

CONVERSION_VERSIONS = frozenset({"apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1"})


class ConversionFailed(ReconcilerError):
    """The object cannot be converted; the message says why."""


class Converter:
    """A converter for the versions of a kind. Every version converts to the hub and back, so each needs one pair.

    ::

        converter = Converter("example.com", "Database", hub="v1")
        converter.add("v1alpha1", to_hub=gigabytes_from_text, from_hub=text_from_gigabytes)
        server.add(converter)

    A conversion must not lose data: keep what the other version has no field for in an annotation. Of the metadata it
    may only change labels and annotations; the API server rejects other changes.

    Args:
        group: the API group of the kind.
        kind: the kind.
        hub: the version through which all others are converted, usually the storage version.
    """

    def __init__(self, group: str, kind: str, *, hub: str) -> None:
        self.group = group
        self.kind = kind
        self.hub = hub
        self._steps: dict[str, tuple[Step, Step]] = {}

    @property
    def served_at(self) -> str:
        """Return the path: ``/convert-<group>-<kind>``."""
        return f"/convert-{self.group.replace('.', '-')}-{self.kind.lower()}"

    @property
    def versions(self) -> tuple[str, ...]:
        """Return all versions, the hub first."""
        return (self.hub, *self._steps)

    def add(self, version: str, *, to_hub: Step, from_hub: Step) -> None:
        """Add the conversion of a version to the hub and back.

        Raises:
            ConfigurationError: the version is the hub, or was already added.
        """
        if version in self.versions:
            raise ConfigurationError(f"{self.kind}: a conversion of version {version} already exists")
        self._steps[version] = (to_hub, from_hub)

    def convert(self, document: Mapping[str, Any], desired: str) -> JSONObject:
        """Return a copy of an object in another version.

        Args:
            document: the object; it is not modified.
            desired: the other version, as ``group/version``.

        Raises:
            ConversionFailed: the object has another kind, a version is unknown, or a conversion function failed.
        """
        version, target = self._version(str(document.get("apiVersion"))), self._version(desired)
        if document.get("kind") != self.kind:
            raise ConversionFailed(f"the object's kind is {document.get('kind')}, not {self.kind}")
        result = copy.deepcopy(dict(document))
        if version == target:
            return result
        if version != self.hub:
            result = self._step(self._steps[version][0], result, self.hub)
        if target != self.hub:
            result = self._step(self._steps[target][1], result, target)
        return result

    def _step(self, step: Step, document: JSONObject, version: str) -> JSONObject:
        try:
            result = step(document)
        except Exception as error:
            name = (document.get("metadata") or {}).get("name")
            raise ConversionFailed(f"cannot convert {self.kind} {name} to {version}: {error}") from error
        result = document if result is None else result
        result["apiVersion"] = f"{self.group}/{version}"
        return result

    def _version(self, api_version: str) -> str:
        group, _, version = api_version.rpartition("/")
        if group != self.group or version not in self.versions:
            known = ", ".join(f"{self.group}/{each}" for each in self.versions)
            raise ConversionFailed(f"{api_version!r} is not a known version of {self.kind}: known are {known}")
        return version
