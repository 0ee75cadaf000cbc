"""The verbs get, list and watch: selectors, resourceVersion semantics, pages and continue tokens."""

from __future__ import annotations

import base64
import bisect
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.decoding import BuiltInContents, Decoding, Place, first_error
from reconciler.apiserver.cluster import ClusterStorage
from reconciler.apiserver.encoding.json_documents import InvalidJSON, OutOfRange, read_json
from reconciler.apiserver.encoding.refusals import FieldError, Refusal
from reconciler.apiserver.encoding.text import go_bool, go_int, go_type, quoted, recorded
from reconciler.apiserver.encoding.versions import has_feature
from reconciler.apiserver.schema import Node
from reconciler.apiserver.store import ObjectSnapshot, ObjectStore, Stored, encode
from reconciler.apiserver.verbs.routing import (
    Call,
    Selector,
    parse_field_selector,
    parse_label_selector,
)
from reconciler.apiserver.verbs.views import WholeView
from reconciler.apiserver.verbs.watch import WatchResponse

_URL_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_MATCH, _INITIAL = "resourceVersionMatch", "sendInitialEvents"


def selector_of(call: Call) -> Selector:
    """Return the selector of a list, watch or deletecollection.

    Raises:
        Refusal: 400 for an invalid selector or an unsupported field, 422 for options that exclude each other.
    """
    for number in ("timeoutSeconds", "limit"):
        _number(call.query.get(number, ""))
    labels, fields = call.query.get("labelSelector", ""), call.query.get("fieldSelector", "")
    wanted = parse_label_selector(labels) if labels else []
    terms = parse_field_selector(fields) if fields else []
    # The options are checked against each other after all of them were parsed.
    if call.verb == "watch":
        _initial_events(call)
    else:
        _check_match(call)
    if call.name:
        terms += parse_field_selector(f"metadata.name={call.name}")
    readers, endpoint = call.endpoint.selectable, call.endpoint
    spaceless = endpoint.resource.custom and not endpoint.info.namespaced
    everywhere = _COMMON.keys() - ({"metadata.namespace"} if spaceless else ())
    for term in terms:
        if term.path not in everywhere and term.path not in readers:
            if call.endpoint.resource.custom or readers:
                raise Refusal.bad_request(endpoint.info.unselectable.format(term.path))
            known = ", ".join(f'"{path}"' for path in (*_COMMON, *readers))
            raise Refusal.bad_request(f'"{term.path}" is not a known field selector: only {known}')

    def read(doc: JSONObject, path: str) -> str:
        return _COMMON[path](doc) if path in _COMMON else readers[path](doc)

    return Selector(wanted, terms, read)


_COMMON: dict[str, Callable[[JSONObject], str]] = {
    "metadata.name": lambda doc: str(doc["metadata"]["name"]),
    "metadata.namespace": lambda doc: str(doc["metadata"].get("namespace", "")),
}


_FIELDS = {"v": Node("string"), "rv": Node("integer", "int64", name="int64"), "start": Node("string")}
_CONTINUE = BuiltInContents(Node(name="storage.continueToken", properties=_FIELDS))


@dataclass(frozen=True, slots=True)
class _PageToken:
    """A continue token of a list: the version of the snapshot, and the first key that was not sent."""

    rv: int
    start: str

    def text(self) -> str:
        raw = encode({"v": "meta.k8s.io/v1", "rv": self.rv, "start": self.start})
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @classmethod
    def read(cls, text: str) -> _PageToken:
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except ValueError:
            bad = next((at for at, letter in enumerate(text) if letter not in _URL_SAFE), len(text) // 4 * 4)
            raise _bad_token(f"illegal base64 data at input byte {bad}") from None
        decoding = Decoding()
        try:
            found = read_json(raw)
            found = {} if found is None else found
        except OutOfRange as error:
            place = Place(decoding, "rv", "rv", _CONTINUE.node.name)
            raise _bad_token(place.problem(f"number {error.number}", "int64")) from None
        except InvalidJSON as error:
            raise _bad_token(str(error)) from None
        if not isinstance(found, dict):
            problem = f"json: cannot unmarshal {go_type(found)} into Go value of type {_CONTINUE.node.name}"
            raise _bad_token(problem)
        token = _CONTINUE.decode(found, None, decoding)
        if decoding.problems:
            raise _bad_token(first_error(decoding.problems, list(found)))
        version, rv, start = token.get("v", ""), token.get("rv", 0), token.get("start", "")
        if version != "meta.k8s.io/v1":
            raise _bad_token(f"server does not recognize this encoded version {version}")
        if not rv:
            raise _bad_token("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
        if not start or posixpath.normpath(f"/{start}") != f"/{start}":
            raise _bad_token(start or "empty encoded start key (version meta.k8s.io/v1)")
        return cls(rv, start)


def _bad_token(problem: str) -> Refusal:
    return Refusal.bad_request(f"invalid continue token: continue key is not valid: {problem}")


PastState: TypeAlias = tuple[float, int | None]
"""An earlier state of the server: its age in seconds, or its resourceVersion."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The implementation of the verbs get, list and watch; it raises a `Refusal` with the codes of the real server."""

    cluster: ClusterStorage

    def get(self, call: Call, stale: PastState | None = None) -> Stored:
        """Return one object."""
        asked = _watch_version(call)
        if asked:
            self._not_in_future(asked)
        resource = call.endpoint.resource
        key, objects = resource.key(call.namespace, call.name), resource.store.objects
        if asked == 0 and stale is not None:
            objects = self._past(resource.store, stale).objects
        found = objects.get(key)
        if found is None:
            raise Refusal.not_found(resource.info.plural, resource.info.group, call.name)
        return found

    def list_objects(self, call: Call, view: WholeView, stale: PastState | None = None) -> bytes:
        """Return the JSON of a list."""
        selector = selector_of(call)
        objects, rv, token = self._snapshot(call, selector, stale)
        items, remaining, following = self._page(call, selector, objects, rv, token)
        endpoint = call.endpoint
        metadata: JSONObject = {"continue": ""} if endpoint.resource.custom else {}
        if following is not None:
            metadata["continue"] = following.text()
            if remaining:
                metadata["remainingItemCount"] = remaining
        metadata["resourceVersion"] = str(rv)
        return view.encode_list(endpoint, items, metadata)

    def _snapshot(
        self, call: Call, selector: Selector, stale: PastState | None
    ) -> tuple[ObjectSnapshot, int, _PageToken | None]:
        store, current = call.endpoint.store, self.cluster.revisions.current
        match, token = call.query.get("resourceVersionMatch", ""), call.query.get("continue", "")
        try:
            asked = _watch_version(call)
        except Refusal as refusal:
            raise Refusal.bad_request(f"invalid resource version: {refusal.message}") from None
        if token:
            found = _PageToken.read(token)
            if asked:
                raise Refusal.bad_request("specifying resource version is not allowed when using continue")
            if found.rv < 0:
                return store.now, current, found
            snapshot = store.at(found.rv)
            if snapshot is None or found.rv < self.cluster.revisions.compacted:
                following = {"continue": _PageToken(-1, found.start).text()}
                raise Refusal.expired(recorded("texts.json")["continue expired"], metadata=following)
            return snapshot, found.rv, found
        if asked is not None:
            self._not_in_future(asked)
            # With a limit but no match, the real server reads the exact version, except for a single object.
            paged = _limit(call) and not _selects_one(call, selector)
            if asked and (match == "Exact" or (not match and paged)):
                snapshot = store.at(asked)
                if snapshot is None or asked < self.cluster.revisions.compacted:
                    raise Refusal.expired("The resourceVersion for the provided list is too old.")
                return snapshot, asked, None
            if asked == 0 and stale is not None:
                return self._past(store, stale), self._past_version(store, stale), None
        return store.now, current, None

    def _page(
        self,
        call: Call,
        selector: Selector,
        snapshot: ObjectSnapshot,
        rv: int,
        token: _PageToken | None,
    ) -> tuple[list[Stored], int, _PageToken | None]:
        (objects, keys), limit = snapshot, _limit(call)
        namespace = _namespace_of(call, selector)
        start, stop = snapshot.span(namespace)
        if _selects_one(call, selector):
            # A single object is read by its key, so there is no next page.
            one = objects.get(call.endpoint.resource.key(namespace, selector.name))
            return [one] if one is not None and selector.matches(one.doc) else [], 0, None
        if token is not None:
            start = bisect.bisect_left(keys, token.start, start, stop)
        found: list[Stored] = []
        for index in range(start, stop):
            stored = objects[keys[index]]
            if limit and len(found) == limit:
                remaining = stop - index if selector.empty else 0
                return found, remaining, _PageToken(rv, keys[index])
            if not selector.empty and not selector.matches(stored.doc):
                continue
            found.append(stored)
        return found, 0, None

    def watch(self, call: Call, view: WholeView, stale: PastState | None = None) -> WatchResponse:
        """Return the stream of a watch; a version that was dropped from the history is reported inside the stream."""
        store, selector = call.endpoint.store, selector_of(call)
        initial_events = _initial_events(call)
        asked, current = _watch_version(call), self.cluster.revisions.current
        timeout = _number(call.query.get("timeoutSeconds", ""))
        position = store.end
        initial: list[Stored] = []
        failure: Refusal | None = None
        from_the_start = initial_events or (initial_events is None and not asked)
        if asked is not None and asked > current:
            failure = Refusal.too_large_resource_version(asked, current) if initial_events else None
        elif from_the_start:
            position, initial = self._initial(call, selector, asked, stale)
        elif asked:
            found = store.position(asked)
            if found is None:
                failure = Refusal.expired(f"too old resource version: {asked} ({store.floor})")
            position = position if found is None else found
        bookmarks = go_bool(call.query.get("allowWatchBookmarks", ""))
        watch = WatchResponse(
            call.endpoint,
            call.namespace,
            selector,
            view,
            position=position,
            after=asked or 0,
            initial=initial,
            initial_done=current if bookmarks and from_the_start else None,
            bookmarks=bookmarks,
            timeout=float(timeout) or None,
            version=lambda: self.cluster.revisions.current,
        )
        if failure is not None:
            watch.expire(failure)
        return watch

    def _initial(
        self, call: Call, selector: Selector, asked: int | None, stale: PastState | None
    ) -> tuple[int, list[Stored]]:
        store = call.endpoint.store
        snapshot, position = store.now, store.end
        if asked == 0 and stale is not None:
            rv = self._past_version(store, stale)
            snapshot, position = self._past(store, stale), store.position(rv) or store.end
        objects, (start, stop) = snapshot.objects, snapshot.span(call.namespace)
        return position, [
            objects[key] for key in snapshot.keys[start:stop] if selector.empty or selector.matches(objects[key].doc)
        ]

    def _not_in_future(self, asked: int) -> None:
        current = self.cluster.revisions.current
        if asked > current:
            raise Refusal.too_large_resource_version(asked, current)

    def _past_version(self, store: ObjectStore, state: PastState) -> int:
        seconds, version = state
        if version is not None:
            return max(store.floor, min(version, self.cluster.revisions.current))
        before = self.cluster.clock.monotonic() - seconds
        for event in store.recent():
            if event.at <= before:
                return event.rv
        return store.floor

    def _past(self, store: ObjectStore, state: PastState) -> ObjectSnapshot:
        return store.at(self._past_version(store, state)) or store.now


def _initial_events(call: Call) -> bool | None:
    text, match = call.query.get("sendInitialEvents"), call.query.get("resourceVersionMatch", "")
    if call.query.keys().isdisjoint((_INITIAL, _MATCH, "continue")):
        return None
    gate = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
    given = text is not None
    lacks_feature = not has_feature("WatchList", call.endpoint.info.release)
    _refuse_options(
        (not given and match, _no_match(f"{_MATCH} is forbidden for watch unless sendInitialEvents is provided")),
        (given and match != "NotOlderThan", _no_match(f"sendInitialEvents requires setting {_MATCH} to NotOlderThan")),
        (given and lacks_feature, FieldError.forbidden("sendInitialEvents", gate)),
        (given and match not in ("", "NotOlderThan"), FieldError.not_supported(_MATCH, match, ("NotOlderThan",))),
        (call.query.get("continue"), _no_match(f"{_MATCH} is forbidden when continue is provided")),
    )
    return None if text is None else go_bool(text)


def _refuse_options(*checks: tuple[object, FieldError]) -> None:
    """Raise the 422 with the errors of options that are wrong, if there are any."""
    if errors := [error for wrong, error in checks if wrong]:
        raise Refusal.option_invalid("ListOptions", *errors)


def _no_match(why: str) -> FieldError:
    return FieldError.forbidden(_MATCH, why)


def _check_match(call: Call) -> None:
    if call.query.keys().isdisjoint((_INITIAL, _MATCH)):
        return
    asked, match, token = (call.query.get(name, "") for name in ("resourceVersion", _MATCH, "continue"))
    known, forbidden = ("Exact", "NotOlderThan"), f"{_MATCH} is forbidden"
    at_zero = f'{_MATCH} "exact" is forbidden for resourceVersion "0"'
    _refuse_options(
        (match and token, _no_match(f"{forbidden} when continue is provided")),
        (match and not token and not asked, _no_match(f"{forbidden} unless resourceVersion is provided")),
        (match and match not in known, FieldError.not_supported(_MATCH, match, (*known, ""))),
        (match == "Exact" and asked == "0", _no_match(at_zero)),
        (_INITIAL in call.query, FieldError.forbidden(_INITIAL, f"{_INITIAL} is forbidden for list")),
    )


def _watch_version(call: Call) -> int | None:
    text = call.query.get("resourceVersion", "")
    try:
        return go_int(text, signed=False) if text else None
    except ValueError as error:
        raise Refusal.internal_error(f"resourceVersion: Invalid value: {quoted(text)}: {error}") from None


def _namespace_of(call: Call, selector: Selector) -> str | None:
    """Return the namespace of a list; a selected namespace counts too, except on a next page."""
    if call.namespace or not call.endpoint.info.namespaced or call.query.get("continue"):
        return call.namespace
    return selector.namespace or None


def _selects_one(call: Call, selector: Selector) -> bool:
    """Return whether a list selects a single object: one name in one namespace."""
    placed = not call.endpoint.info.namespaced or bool(_namespace_of(call, selector))
    return bool(selector.name) and placed and not call.query.get("continue")


def _limit(call: Call) -> int:
    # The real server's cache does not page reads at version 0.
    return 0 if call.query.get("resourceVersion") == "0" else max(0, _number(call.query.get("limit", "")))


def _number(text: str) -> int:
    try:
        return go_int(text) if text else 0
    except ValueError as error:
        raise Refusal.bad_request(str(error)) from None
