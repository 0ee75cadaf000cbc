"""The command ``reconciler explain``: why an object ran last, what happened, and when it runs next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.cli.operator.endpoint import EndpointError, key_text, printable, read_keys
from reconciler.cli.options import AccessFlags
from reconciler.cli.output import print_json
from reconciler.controller.wake.reasons import because
from reconciler.errors import ConfigurationError
from reconciler.meta.scalars import human_duration

__all__ = ["print_explanation"]

_RESULTS = {
    "success": "succeeded",
    "requeue": "succeeded and asked for one more",
    "requeue_after": "succeeded",
    "error": "failed",
    "cancelled": "was cancelled by the shutdown",
}

_MAX_NAMED = 5
"""Objects that a message names."""

_WITHHELD = "the message is shown only to local requests (kubectl port-forward), and is in the log"


def print_explanation(
    kind: str,
    key: str,
    *,
    endpoint: str,
    namespace: str | None = None,
    default_namespace: str | None = None,
    as_json: bool,
    access: AccessFlags = AccessFlags(),  # noqa: B008 - frozen
) -> int:
    """Explain the state of an object, once for each controller of its kind.

    Args:
        kind: its kind, in one of the forms that kubectl accepts, or the name of a controller.
        key: ``NAMESPACE/NAME`` or ``NAME``.
        endpoint: the operator's.
        namespace: the object's; not together with ``NAMESPACE/NAME``.
        default_namespace: the one of the kubeconfig's context, for ``NAME`` alone. Default: ``default``.
        as_json: print a JSON document.
        access: the token to send, and which certificates to trust.

    Raises:
        ConfigurationError: the key is not ``NAMESPACE/NAME`` or ``NAME``, or has another namespace than `namespace`.
        EndpointError: the operator cannot be asked, or knows neither the kind nor the object.
    """
    given, slash, name = key.rpartition("/")
    if not name or "/" in given or (slash and not given) or not key.isprintable():
        raise ConfigurationError(f"{key!r} is not a valid object: write NAMESPACE/NAME or NAME")
    if given and namespace not in (None, given):
        raise ConfigurationError(f"--namespace {namespace} and {key!r} contradict each other: write one of them")
    chosen = given or namespace
    document = read_keys(endpoint, access, name=name, limit=str(_MAX_NAMED))
    controllers = [each for each in document["controllers"] if kind.lower() in _names(each)]
    if not controllers:
        raise EndpointError(_unknown_kind(kind, printable(document)))
    found: list[JSONObject] = []
    own = ""
    for each in controllers:
        own = (chosen or default_namespace or "default") if each.get("namespaced", chosen is not None) else ""
        if chosen and not own:
            raise ConfigurationError(f"{printable(each['kind'])} is cluster-scoped: write the name without a namespace")
        answer = read_keys(endpoint, access, controller=each["name"], namespace=own, name=name)
        found += answer["controllers"]
    document = {**document, "controllers": found}
    if all(_is_unknown(key_) for each in found for key_ in each["keys"]):
        wanted = f"{own}/{name}" if own else name
        raise EndpointError(_unknown_key(printable(wanted), printable(controllers[-1]), document))
    if as_json:
        print_json(document)
        return 0
    document = printable(document)
    now = msgspec.convert(document["now"], datetime)
    blocks = ["\n".join(_told(each, one, now, document)) for each in document["controllers"] for one in each["keys"]]
    print("\n\n".join(blocks))
    return 0


def _names(controller: JSONObject) -> set[str]:
    """Return the names by which a controller's kind may be chosen, in lower case: kubectl's, and its own name."""
    kind = controller["kind"].lower()
    group, _, version = controller["api_version"].lower().rpartition("/")
    names = {kind, *(controller[each].lower() for each in ("plural", "singular") if each in controller)}
    names |= {each.lower() for each in controller.get("short_names", ())}
    if "plural" not in controller:  # the operator is still starting
        names |= {f"{kind}s", f"{kind}es", f"{kind[:-1]}ies"}
    full = {f"{each}.{part}" for each in names for part in (group, f"{version}.{group}") if group}
    return names | full | {f"{controller['api_version'].lower()}/{kind}", controller["name"].lower()}


def _is_unknown(key: JSONObject) -> bool:
    return key["state"] == "unknown" and not key["cached"]


def _unknown_kind(kind: str, document: JSONObject) -> str:
    kinds = sorted({each["kind"] for each in document["controllers"]})
    known = f"it reconciles {', '.join(kinds)}" if kinds else "it has no controllers"
    return f"no controller of this process reconciles {kind!r}; {known}"


def _unknown_key(key: str, controller: JSONObject, document: JSONObject) -> str:
    """Format the message for an unknown object, with the places where the operator knows one of this name.

    Args:
        key: the object.
        controller: the controller, with all keys of this name.
        document: the document.
    """
    others = [key_text(each) for each in controller["keys"] if not _is_unknown(each)]
    if document["role"] == "standby":
        advice = "this process is a standby: ask the leader"
    elif others:
        advice = f"it knows {', '.join(others[:_MAX_NAMED])}"
    else:
        advice = "check the name, and the namespaces, labels and shards that the operator watches"
    return f"{controller['kind']} {key} is not in the cache of the operator, and was not reconciled; {advice}"


def _told(controller: JSONObject, key: JSONObject, now: datetime, document: JSONObject) -> Iterator[str]:
    """Return the lines about one key."""
    yield f"{controller['kind']} {key_text(key)}, controller {controller['name']}: {key['state']}"
    if document["role"] != "running":
        yield f"  This process is {document['role']}, so it does not reconcile. Ask the leader."
    if "in_progress_seconds" in key:
        seconds = human_duration(key["in_progress_seconds"])
        yield f"  A reconcile is in progress for {seconds}, because {because(key.get('current_reasons', ()))}."
        yield from _changes(key.get("current_changes", []))
    yield from _last(key["runs"], now)
    yield from _next(key)
    if key.get("unsaved_status"):
        yield "  Part of its status could not be written; the next reconcile writes it."
    if not key["cached"]:
        yield "  The object is not in the cache: it was deleted, or is not watched."
    yield from _earlier(key["runs"], now)


def _last(runs: list[JSONObject], now: datetime) -> Iterator[str]:
    if not runs:
        yield "  No reconcile of it is remembered."
        return
    run = runs[0]
    yield f"  It ran last {_ago(run, now)} ago, at {_clock(run['started'])}, because {because(run['reasons'])}."
    yield from _changes(run.get("changes", []))
    yield f"  The reconcile took {human_duration(run['seconds'])} and {_result(run)}."
    error = run.get("error")
    if error is not None:
        message = error.get("message", _WITHHELD).replace("\n", "\n      ")
        yield f"    {error['type']}: {message}"
        yield from (f"      {frame}" for frame in error["traceback"])
        if "reconcile_id" in run:
            yield f"    Its log records have the reconcile_id {run['reconcile_id']}."
    yield f"  The status was {'written' if run['status_written'] else 'not written'}."
    if run["changed_meanwhile"]:
        yield "  The object changed during the reconcile, so another one follows."


def _next(key: JSONObject) -> Iterator[str]:
    if "due_in_seconds" in key:
        at = f", at {_clock(key['due'])}" if "due" in key else ""
        yield f"  It runs next in {human_duration(key['due_in_seconds'])}{at}, or when it changes."
    elif "ready_seconds" in key:
        again = "again " if "in_progress_seconds" in key else ""
        reasons = because(key.get("next_reasons", ()))
        yield f"  It is ready to run {again}since {human_duration(key['ready_seconds'])}, because {reasons}."
        yield from _changes(key.get("next_changes", []))
    elif "in_progress_seconds" not in key:
        yield "  No next run is planned."
    yield f"  It waits for {key['waits_for']}."
    if key["failures"] and "backoff after" not in key["waits_for"]:  # which has the number
        yield f"  It failed {_times(key['failures'])} in a row."


def _earlier(runs: list[JSONObject], now: datetime) -> Iterator[str]:
    if len(runs) < 2:
        return
    yield "  Before that:"
    for run in runs[1:]:
        error = f" ({run['error']['type']})" if "error" in run else ""
        yield f"    {_ago(run, now):>7} ago: {', '.join(run['reasons']) or 'no reason'}: {_result(run)}{error}"


def _changes(changes: list[JSONObject]) -> Iterator[str]:
    """Return the lines about the changes that woke a key: the object, its fields, and who wrote them."""
    for change in changes:
        fields = change["fields"]
        writers = {tuple(field.get("managers", ())) for field in fields} or {tuple(change.get("managers", ()))}
        common = writers.pop() if len(writers) == 1 else ()
        colon = ":" if fields else ""
        yield f"    {change['kind']} {key_text(change)} was {change['type']}{_by(common)}{colon}"
        for field in fields:
            by = "" if common else _by(field.get("managers", ()))
            yield f"      {field['path']}{_values(field)}{by}"
        if "fields_left_out" in change:
            yield (
                f"      and {change['fields_left_out']} more fields"
                if fields
                else "      its fields are nested too deeply"
            )


def _by(managers: Sequence[str]) -> str:
    return f" by {' or '.join(managers)}" if managers else ""


def _values(field: JSONObject) -> str:
    """Return what happened to a field, with its values if they are shown."""
    if field["change"] == "changed" and "before" in field and "after" in field:
        return f": {field['before']} → {field['after']}"
    value = field.get("after", field.get("before")) if field["change"] != "changed" else None
    return f" was {field['change']}" + ("" if value is None else f": {value}")


def _result(run: JSONObject) -> str:
    if "error" in run and run["error"]["timed_out"]:
        return "timed out"
    delay, result = run.get("requeue_after_seconds"), str(run["result"])
    return _RESULTS.get(result, result) + (f", to run again after {human_duration(delay)}" if delay is not None else "")


def _clock(time: str) -> str:
    """Return a time of the JSON without the fraction of the second."""
    return f"{time.partition('.')[0].upper().removesuffix('Z')}Z"


def _ago(run: JSONObject, now: datetime) -> str:
    return human_duration(max(0.0, (now - msgspec.convert(run["started"], datetime)).total_seconds()))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
