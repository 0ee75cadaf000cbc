"""The command ``reconciler explain``: why an object ran last, what happened, and when it runs next."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from cyclopts import Parameter

from reconciler.cli.endpoint import EndpointError, find_operator, printable, read_keys
from reconciler.cli.options import AccessFlags, Format, OperatorOptions
from reconciler.cli.output import print_json, width
from reconciler.controller.wake.change import FieldChange
from reconciler.controller.wake.reasons import because
from reconciler.errors import ConfigurationError
from reconciler.manager.endpoints.keys import ChangeReport, ControllerReport, KeyReport, KeysDocument, RunReport
from reconciler.meta.documents import human_duration

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


def explain(
    kind: str,
    key: Annotated[str, Parameter(name="object")],
    /,
    *,
    namespace: Annotated[str | None, Parameter(name=["--namespace", "-n"])] = None,
    operator: OperatorOptions = OperatorOptions(),  # noqa: B008 - frozen
    access: AccessFlags = AccessFlags(),  # noqa: B008 - frozen
    output: Format = "text",
) -> int:
    """Explain the state of an object: its last reconcile, the result, and the time and reason of the next one.

    Asks a running operator at --endpoint. It must serve --metrics or --health. For one in a cluster, first forward its
    port: kubectl port-forward deploy/NAME 8080

    Args:
        kind: Kind, plural or short name, with or without .GROUP; or the name of a controller.
        key: NAME or NAMESPACE/NAME.
        namespace: Namespace of the object. Default: that of the context.
    """
    found = find_operator(operator)
    ask = functools.partial(read_keys, found.endpoint, access)
    document = find_key(ask, kind, key, namespace=namespace, default_namespace=found.namespace)
    if output == "json":
        print_json(document)
    else:
        print(explanation(document, width()))
    return 0


def find_key(
    ask: Callable[..., KeysDocument],
    kind: str,
    key: str,
    *,
    namespace: str | None = None,
    default_namespace: str | None = None,
) -> KeysDocument:
    """Return the document about one object, with each controller of its kind.

    Args:
        ask: returns the operator's document for a query.
        kind: its kind, in one of the forms that kubectl accepts, or the name of a controller.
        key: ``NAMESPACE/NAME`` or ``NAME``.
        namespace: the object's; not together with another ``NAMESPACE/NAME``.
        default_namespace: the one of the kubeconfig's context, for ``NAME`` alone. Default: ``default``.

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
    document = ask(name=name, limit=str(_MAX_NAMED))
    controllers = [each for each in document.controllers if kind.lower() in _names(each)]
    if not controllers:
        raise EndpointError(_unknown_kind(kind, printable(document)))
    found: list[ControllerReport] = []
    own = ""
    for each in controllers:
        namespaced = chosen is not None if each.namespaced is None else each.namespaced
        own = (chosen or default_namespace or "default") if namespaced else ""
        if chosen and not own:
            raise ConfigurationError(f"{printable(each.kind)} is cluster-scoped: write the name without a namespace")
        found += ask(controller=each.name, namespace=own, name=name).controllers
    document = msgspec.structs.replace(document, controllers=tuple(found))
    if all(_is_unknown(key_) for each in found for key_ in each.keys):
        wanted = f"{own}/{name}" if own else name
        raise EndpointError(_unknown_key(printable(wanted), printable(controllers[-1]), printable(document)))
    return document


def explanation(document: KeysDocument, width: int | None = None) -> str:
    """Return the document of `find_key` as text, with long lines wrapped if there is a width."""
    document = printable(document)
    blocks = ["\n".join(_told(each, key_, document)) for each in document.controllers for key_ in each.keys]
    text = "\n\n".join(blocks)
    return text if width is None else "\n".join(_wrapped(line, width) for line in text.splitlines())


def _wrapped(line: str, width: int) -> str:
    """Return a line with a hanging indent."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.fill(
        line, max(width, 40), subsequent_indent=indent, break_on_hyphens=False, break_long_words=False, tabsize=1
    )


def _names(controller: ControllerReport) -> set[str]:
    """Return the names by which a controller's kind may be chosen, in lower case: kubectl's, and its own name."""
    kind, api_version = controller.kind.lower(), controller.api_version.lower()
    group, _, version = api_version.rpartition("/")
    names = {
        kind,
        *(each.lower() for each in (controller.plural, controller.singular, *controller.short_names) if each),
    }
    if controller.plural is None:  # the operator is still starting
        names |= {f"{kind}s", f"{kind}es", f"{kind[:-1]}ies"}
    full = {f"{each}.{part}" for each in names for part in (group, f"{version}.{group}") if group}
    return names | full | {f"{api_version}/{kind}", controller.name.lower()}


def _is_unknown(key: KeyReport) -> bool:
    return key.state == "unknown" and not key.cached


def _unknown_kind(kind: str, document: KeysDocument) -> str:
    kinds = sorted({each.kind for each in document.controllers})
    known = f"it reconciles {', '.join(kinds)}" if kinds else "it has no controllers"
    return f"no controller of this process reconciles {kind!r}; {known}"


def _unknown_key(key: str, controller: ControllerReport, document: KeysDocument) -> str:
    """Return the message for an unknown object: which objects of its name the operator knows.

    Args:
        key: the object.
        controller: the controller, with all keys of this name.
        document: says what the process waits for.
    """
    others = [str(each) for each in controller.keys if not _is_unknown(each)]
    problems = [wait.text for wait in document.waits if not wait.normal]
    if problems:
        advice = f"this process is {document.role}, and waits: {'; '.join(problems)}"
    elif document.role == "standby":
        advice = "this process is a standby: ask the leader"
    elif document.role != "running":
        advice = f"this process is {document.role}: ask again when it runs"
    elif others:
        advice = f"it knows {', '.join(others[:_MAX_NAMED])}"
    else:
        advice = "check the name, and the namespaces, labels and shards that the operator watches"
    return f"{controller.kind} {key} is not in the cache of the operator, and was not reconciled; {advice}"


def _told(controller: ControllerReport, key: KeyReport, document: KeysDocument) -> Iterator[str]:
    """Yield the lines about one key."""
    yield f"{controller.kind} {key}, controller {controller.name}: {key.state}"
    if document.role != "running":
        ask = " Ask the leader." if document.role == "standby" else ""
        yield f"  This process is {document.role}, so it does not reconcile.{ask}"
    yield from (f"  The process waits: {wait.text.rstrip('.')}." for wait in document.waits)
    if key.in_progress_seconds is not None:
        seconds = human_duration(key.in_progress_seconds)
        yield f"  A reconcile is in progress for {seconds}, because {because(key.current_reasons)}."
        if key.place is not None:
            yield f"  It is at {key.place}."
            yield from (f"      {frame}" for frame in key.place.frames[:-1])
        yield from change_lines(key.current_changes)
    yield from _last(key.runs, document.now)
    yield from _next(key)
    yield from (f"  Needs attention: {each.rstrip('.')}." for each in key.attention)
    if key.own_writes:
        yield f"  Its own write of {', '.join(key.own_writes)} enqueues it again."
    if key.unsaved_status:
        yield "  Part of its status could not be written; the next reconcile writes it."
    if not key.cached:
        yield "  The object is not in the cache: it was deleted, or is not watched."
    yield from _earlier(key.runs, document.now)


def _last(runs: Sequence[RunReport], now: datetime) -> Iterator[str]:
    if not runs:
        yield "  No reconcile of it is remembered."
        return
    run = runs[0]
    yield f"  It ran last {_ago(run, now)} ago, at {_clock(run.started)}, because {because(run.reasons)}."
    yield from change_lines(run.changes)
    yield f"  The reconcile took {human_duration(run.seconds)} and {result_text(run)}."
    if run.error is not None:
        message = _WITHHELD if run.error.message is None else run.error.message.replace("\n", "\n      ")
        yield f"    {run.error.type}: {message}"
        yield from (f"      {frame}" for frame in run.error.traceback)
        if run.reconcile_id is not None:
            yield f"    Its log records have the reconcile_id {run.reconcile_id}."
    yield f"  The status was {'written' if run.status_written else 'not written'}."
    if run.changed_meanwhile:
        yield "  The object changed during the reconcile, so another one follows."


def _next(key: KeyReport) -> Iterator[str]:
    if key.due_in_seconds is not None:
        at = f", at {_clock(key.due)}" if key.due is not None else ""
        yield f"  It runs next in {human_duration(key.due_in_seconds)}{at}, or when it changes."
    elif key.ready_seconds is not None:
        again = "" if key.in_progress_seconds is None else "again "
        reasons = because(key.next_reasons)
        yield f"  It is ready to run {again}since {human_duration(key.ready_seconds)}, because {reasons}."
        yield from change_lines(key.next_changes)
    elif key.in_progress_seconds is None:
        yield "  No next run is planned."
    yield f"  It waits for {key.waits_for}."
    if key.failures and "backoff after" not in key.waits_for:  # which has the number
        yield f"  It failed {'once' if key.failures == 1 else f'{key.failures} times'} in a row."


def _earlier(runs: Sequence[RunReport], now: datetime) -> Iterator[str]:
    if len(runs) < 2:
        return
    yield "  Before that:"
    for run in runs[1:]:
        error = f" ({run.error.type})" if run.error is not None else ""
        yield f"    {_ago(run, now):>7} ago: {', '.join(run.reasons) or 'no reason'}: {result_text(run)}{error}"


def change_lines(changes: Sequence[ChangeReport]) -> Iterator[str]:
    """Yield the lines about the changes that enqueued a key: the object, its fields, and who wrote them."""
    for change in changes:
        writers = {field.managers for field in change.fields} or {change.managers}
        common = writers.pop() if len(writers) == 1 else ()
        colon = ":" if change.fields else ""
        yield f"    {change.kind} {change} was {change.type}{by_text(common)}{colon}"
        for field in change.fields:
            yield f"      {field.path}{field_text(field)}{'' if common else by_text(field.managers)}"
        if change.fields_left_out and change.fields:
            yield f"      and {change.fields_left_out} more fields"
        elif change.fields_left_out:
            yield "      its fields are nested too deeply"


def by_text(managers: Sequence[str]) -> str:
    """Return who wrote something; nothing if that is not known."""
    return f" by {' or '.join(managers)}" if managers else ""


def field_text(field: FieldChange) -> str:
    """Return what happened to a field, with its values if they are shown."""
    if field.change == "changed" and field.before is not None and field.after is not None:
        return f": {field.before} → {field.after}"
    value = (field.before if field.after is None else field.after) if field.change != "changed" else None
    return f" was {field.change}" + ("" if value is None else f": {value}")


def result_text(run: RunReport) -> str:
    """Return how a reconcile ended, after "it took a second and"."""
    if run.error is not None and run.error.timed_out:
        return "timed out"
    delay = run.requeue_after_seconds
    again = "" if delay is None else f", to run again after {human_duration(delay)}"
    return _RESULTS.get(run.result, run.result) + again


def _clock(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _ago(run: RunReport, now: datetime) -> str:
    return human_duration(max(0.0, (now - run.started).total_seconds()))
