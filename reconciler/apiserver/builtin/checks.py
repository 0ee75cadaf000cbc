"""The checks that ``rules.txt`` names.

A check takes the rule, the object, a value in it and the path for errors, and yields the errors of the value. Most are
a test and the kind of error that a value gets if the test says so. Those of single kinds are at the end.
"""

from __future__ import annotations

import base64
import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.rule import (
    FORMS,
    Check,
    FieldRule,
    ValuePlace,
    amount,
    getter,
    old_value,
    parsed_address,
)
from reconciler.apiserver.cel.expressions import CompileError, check_condition
from reconciler.apiserver.encoding.formats import form_problems, qualified_name_problems
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import quoted, read_quantity, recorded

Error = Callable[[FieldRule, ValuePlace, Any, str], FieldError]
Test = Callable[[FieldRule, ValuePlace, Any], bool]
_EMPTY: tuple[Any, ...] = (None, "", [], {})
EAGER = frozenset({"empty", "generated", "immutable", "needed", "only", "required", "selected", "single", "some-of"})
"""The checks that are about missing values, too."""


def selects(selector: JSONObject, labels: dict[str, str]) -> bool:
    """Return whether a label selector matches labels; an empty selector matches nothing."""
    if not selector:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(labels, term) for term in selector.get("matchExpressions") or ())


def _meets(labels: dict[str, str], term: JSONObject) -> bool:
    key, values = term.get("key", ""), term.get("values") or ()
    operator = term.get("operator")
    if operator in ("Exists", "DoesNotExist"):
        return (key in labels) is (operator == "Exists")
    return (labels.get(key) in values) is (operator == "In")


def without_empty(value: Any) -> Any:
    """Return a value without empty members, which Go does not distinguish from missing ones."""
    if isinstance(value, dict):
        kept = {key: without_empty(item) for key, item in value.items() if item is not False}
        return {key: item for key, item in kept.items() if item not in _EMPTY}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


def difference(before: JSONObject, after: JSONObject) -> str:
    """Return a diff of two values; the real server's diff shows the fields of its internal types."""
    old, new = (json.dumps(without_empty(spec), indent=1, sort_keys=True).split("\n") for spec in (before, after))
    lines = difflib.unified_diff(old, new, lineterm="")
    return "\n".join([line for line in lines if not line.startswith(("---", "+++"))] + [""])


# Tests of a value.


def _required(rule: FieldRule, place: ValuePlace, _value: Any, path: str) -> FieldError:
    return FieldError.required(path, rule.message(place))


def _forbidden(rule: FieldRule, place: ValuePlace, _value: Any, path: str) -> FieldError:
    return FieldError.forbidden(path, rule.message(place))


def _invalid(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> FieldError:
    return rule.invalid(place, "" if value is None else value, path)


def _too_many(rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> FieldError:
    words = f"Too many: {len(value)}: must have at most {rule.arguments[0]} items"
    return FieldError(path, words, "FieldValueTooMany")


def _too_long(rule: FieldRule, _place: ValuePlace, _value: Any, path: str) -> FieldError:
    return FieldError(path, f"Too long: may not be more than {rule.arguments[0]} bytes", "FieldValueTooLong")


def _is_longer(rule: FieldRule, _place: ValuePlace, value: Any) -> bool:
    return len(value or "") > int(rule.arguments[0])


def _members(rule: FieldRule, value: Any) -> list[str]:
    """Return the members of a value among the arguments."""
    return [key for key in rule.arguments if (value or {}).get(key) is not None]


def _has_changed(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that an update does not change a member; a missing value and an empty one are the same."""
    known, found = without_empty(old_value(place, path)), without_empty(value)
    if place.before is not None and (found or None) != (known or None):
        yield rule.invalid(place, value, path, "field is immutable")


def _fixed(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that an update changes no member besides the arguments; one with ``?`` may be set once.

    The error of a strict rule shows the difference.
    """
    before = getter("@" + ".".join(rule.paths[0]))(place) or {}
    free = {word.rstrip("?") for word in rule.arguments if word[-1] != "?" or not before.get(word[:-1])}
    both = (before, value or {})
    old, new = (without_empty({key: each[key] for key in each if key not in free}) for each in both)
    if place.before is not None and old != new:
        shown = f"\n{difference(old, new)}" if rule.strict else ""
        yield FieldError.forbidden(path, f"{rule.message(place)}{shown}")


def _is_outside(rule: FieldRule, place: ValuePlace, value: Any) -> bool:
    """Return whether a network is not a part of the one at a path."""
    whole, part = (parsed_address(text or "") for text in (getter(rule.arguments[0])(place), value))
    return bool(whole and part) and (whole.version != part.version or whole == part or not part.subnet_of(whole))


def _is_of_other_family(rule: FieldRule, place: ValuePlace, value: Any) -> bool:
    family, found = getter(rule.arguments[0])(place), parsed_address(value)
    return found is not None and family in ("IPv4", "IPv6") and family != f"IPv{found.version}"


_TESTS: dict[str, tuple[Test, Error]] = {
    "alone": (lambda rule, _, value: rule.arguments[0] in (value or ()) and len({*value}) > 1, _forbidden),
    "at-most": (_is_longer, _invalid),
    "at-most-bytes": (_is_longer, _too_long),
    "at-most-items": (_is_longer, _too_many),
    "before": (lambda rule, place, value: (value or "~") < (getter(rule.arguments[0])(place) or ""), _invalid),
    "denied": (lambda rule, _, value: rule.concerns(value), _forbidden),
    "dotted": (
        lambda rule, place, value: value != ".".join(str(getter(path)(place) or "") for path in rule.arguments),
        _invalid,
    ),
    "empty": (lambda _rule, _, value: not value, _invalid),
    "exclusive": (lambda rule, _, value: rule.arguments[0] in (value or ()) and len({*value}) > 1, _invalid),
    "family": (_is_of_other_family, _invalid),
    "forbidden": (lambda _rule, _, value: value not in _EMPTY, _forbidden),
    "invalid": (lambda rule, _, value: value not in _EMPTY or rule.concerns(value), _invalid),
    "listed": (lambda _rule, _, value: bool(value) and isinstance(value, list), _forbidden),
    "matches": (
        lambda rule, _, value: rule.concerns(value) and not re.search(rule.arguments[0], str(value or "")),
        _invalid,
    ),
    "needed": (lambda _rule, _, _value: True, _required),
    "not-negative": (lambda _rule, _, value: read_quantity(value) < 0, _invalid),
    "object": (lambda _rule, _, value: value is not None and not isinstance(value, dict), _required),
    "over-100-percent": (lambda _rule, _, value: bool(re.fullmatch("(?!100%)[1-9][0-9]{2,}%", str(value))), _invalid),
    "positive": (lambda _rule, _, value: value is not None and read_quantity(value) <= 0, _invalid),
    "required": (
        lambda rule, _, value: (
            not (value.strip() if value and rule.strict == "!" else value) and (rule.strict != "?" or value is not None)
        ),
        _required,
    ),
    "reserved": (lambda rule, _, value: str(value).startswith(rule.arguments[0]), _forbidden),
    "selected": (
        lambda rule, place, value: not selects({"matchLabels": getter(rule.arguments[0])(place)}, value or {}),
        _invalid,
    ),
    "several": (lambda rule, _, value: len(_members(rule, value)) > 1, _invalid),
    "single": (lambda _rule, _, value: len(value or ()) != 1, _required),
    "some": (lambda rule, _, value: not _members(rule, value), _required),
    "some-of": (lambda rule, _, value: not {*rule.arguments} & {*(value or ())}, _invalid),
    "subset": (_is_outside, _invalid),
    "together": (lambda rule, _, value: {*rule.arguments} <= {*(value or ())}, _invalid),
}


def _tested(test: Test, error: Error) -> Check:
    def check(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
        if test(rule, place, value):
            yield error(rule, place, value, path)

    return check


def _form(problems: Callable[[str], Iterable[str]]) -> Check:
    def check(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
        if rule.concerns(value):
            yield from (rule.invalid(place, value or "", path, problem) for problem in problems(value or ""))

    return check


def _bound(problem: str, exceeds: Callable[[Any, Any], bool]) -> Check:
    """Return the check of a bound: a number, or the one at a path, for which a missing value counts as 0."""

    def check(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
        text = rule.arguments[0]
        limit = amount(place, text)
        if (value is not None or not text.lstrip("-").isdecimal() or rule.strict) and exceeds(value or 0, limit):
            yield rule.invalid(place, value or 0, path, f"{problem} {limit}")

    return check


# Values that are one of several, or differ.


def _in(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that a value is one of the arguments."""
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if not (text or rule.concerns(value)) or text in rule.arguments:
        return
    if rule.say:
        yield _invalid(rule, place, value, path)
    else:
        known = ", ".join(f'"{each}"' for each in rule.arguments)
        shown = rule.shown(place, "" if value is None else value)
        yield FieldError(path, f"Unsupported value: {shown}: supported values: {known}", "FieldValueNotSupported")


def _known(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that a value is one of those at paths; with ``invalid``, the error does not say that it is not found."""
    if not rule.concerns(value) or any(value in getter(where)(place) for where in rule.arguments if where != "invalid"):
        return
    if "invalid" in rule.arguments:
        yield rule.invalid(place, value, path)
    else:
        text = f": {rule.say}" if rule.say else ""
        yield FieldError(path, f"Not found: {quoted(value or '')}{text}", "FieldValueNotFound")


def _unknown(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that a value is not one of those at a path."""
    if value and value in getter(rule.arguments[0])(place):
        yield rule.invalid(place, value, path) if rule.say else FieldError.duplicate(path, value)


def _only(rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that the keys of a map are the arguments."""
    if {*(value or {})} != {*rule.arguments}:
        yield FieldError.not_supported(path, value, rule.arguments)


def _unique(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that the items of a list differ, or the members of them that are named.

    An argument with a dot is what the path of the error has after the index. Items without the first member may be
    alike, except in a strict rule.
    """
    members = [word for word in rule.arguments if word[0] != "."]
    suffix = next((word for word in rule.arguments if word[0] == "."), "." + "".join(members[:1])).rstrip(".")
    seen: list[Any] = []
    for index, item in enumerate(value or ()):
        found = [item.get(key) or "" for key in members] if members else item
        if found not in seen:
            seen += [found] if not members or found[0] or rule.strict else []
            continue
        where, shown = f"{path}[{index}]{suffix}", found[0] if members and not rule.show else item
        if rule.say and not rule.show:
            yield rule.invalid(place, shown, where)
            continue
        # The struct in the error is the key, so it has only the members that are named.
        kept = {key: item[key] for key in members if key in item} if rule.show and not rule.say else shown
        text = f"Duplicate value: {rule.shown(place, kept)}" + (f": {rule.say}" if rule.say else "")
        yield FieldError(where, text, "FieldValueDuplicate")


# Numbers and addresses.


def _range(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    low, high = map(int, rule.arguments)
    if (value is not None or rule.strict) and not low <= (value or 0) <= high:
        yield rule.invalid(place, value or 0, path, f"must be between {low} and {high}, inclusive")


def _port(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that a value is the number or the name of a port."""
    if value is None and rule.strict:
        value = 0
    if isinstance(value, int) and not 1 <= value <= 65535:
        yield rule.invalid(place, value, path, "must be between 1 and 65535, inclusive")
    elif isinstance(value, str):
        yield from (rule.invalid(place, value, path, problem) for problem in form_problems("port-name", value))


def _percent(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that a value is a number that is not negative, or a percentage."""
    if isinstance(value, str) and not re.fullmatch("[0-9]+%", value):
        words = "a valid percent string must be a numeric string followed by an ending '%'"
        example = "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
        yield rule.invalid(place, value, path, f"{words} {example}")
    elif isinstance(value, int) and value < 0:
        yield rule.invalid(place, value, path, "must be greater than or equal to 0")


def _one_per_family(_rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    found = [parsed_address(item.get("ip") or "") for item in value or ()]
    versions = [address.version for address in found if address is not None]
    if len(versions) > len({*versions}):
        shown = [{"IP": item.get("ip") or ""} for item in value]
        yield FieldError.invalid_struct(path, shown, "may specify no more than one IP for each IP family")


# Maps of texts.


def _labels(_rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    """Check the keys and the values of labels."""
    for key, text in (value or {}).items():
        yield from (FieldError.invalid(path, key, problem) for problem in qualified_name_problems(key))
        yield from (FieldError.invalid(path, text, problem) for problem in form_problems("label-value", text))


def _annotations(_rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    for key in value or ():
        yield from (FieldError.invalid(path, key, problem) for problem in qualified_name_problems(key.lower()))


def _json(_rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that an entry of a Secret is JSON; the error does not show it."""
    text = base64.b64decode(value or "bnVsbA==").decode(errors="replace")
    try:
        json.loads(text)
    except ValueError:
        problem = f"invalid character '{text.strip()[:1]}' looking for beginning of value"
        yield FieldError.invalid(path, "<secret contents redacted>", problem)


# Pods and Jobs.


def _indexes(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check the indexes of a Job that are complete, such as ``0,2-4``."""
    most = getter("^spec.completions")(place)
    wrong = [text for text in re.findall(r"\d+", value or "") if most is not None and int(text) >= most]
    if wrong:
        yield rule.invalid(place, value, path, f'error parsing completedIndexes: too large index: "{wrong[0]}"')


def _generated(_rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that the selector of a Job is the one that the server makes."""
    uid = getter("/metadata.uid")(place)
    if value != {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}:
        yield FieldError.invalid(path, value, "`selector` not auto-generated")


def _host_ports(_rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check the host ports of containers: they are the container ports on the network of the host, and unique."""
    seen: set[str] = set()
    for index, container in enumerate(value or ()):
        for at, port in enumerate(container.get("ports") or ()):
            where, number = f"{path}[{index}].ports[{at}].hostPort", port.get("hostPort")
            key = f"{port.get('protocol')}/{port.get('hostIP') or ''}/{number}"
            if number and key in seen:
                yield FieldError.duplicate(where, key)
            if place.value.get("hostNetwork") and number != port.get("containerPort"):
                yield FieldError.invalid(where, number or 0, "must match `containerPort` when `hostNetwork` is true")
            seen.add(key)


def _stays_terminated(_rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that a container that terminated is not shown in another state."""
    before = old_value(place, path) or ()
    done = {item.get("name") for item in before if (item.get("state") or {}).get("terminated")}
    for index, item in enumerate(value or ()):
        if item.get("name") in done and not (item.get("state") or {}).get("terminated"):
            yield FieldError.forbidden(f"{path}[{index}].state", "may not be transitioned to non-terminated state")


_KNOWN = {of: frozenset(names) for of, names in recorded("builtin/rules/resources.json").items()}
"""The standard resources of containers and of quotas, those that are counted, and those in the scope ``BestEffort``."""
_ORDER = recorded("builtin/rules/limits.json")
"""Amounts of a limit of which the first is at most the second, the one that errors name, that they show, and words."""
_NOT_NEGATIVE = "must be greater than or equal to 0"


# Resources, their amounts and their limits.


def _is_extended(name: str) -> bool:
    """Return whether a resource is not one of Kubernetes itself."""
    domain, slash, _ = name.removeprefix("requests.").partition("/")
    return bool(slash) and "kubernetes.io" not in domain and domain != "count"


def _is_fixed(name: str) -> bool:
    """Return whether a resource cannot be overcommitted."""
    return _is_extended(name) or name.startswith("hugepages-")


def _name_problems(name: str, of: str) -> list[str]:
    problems = qualified_name_problems(name)
    if "/" in name or re.match(r"(requests\.|limits\.)?hugepages-", name):
        return problems
    if not problems and name not in _KNOWN["quota"] | {"storage"}:
        problems = ["must be a standard resource type or fully qualified"]
    return problems + ([] if name in _KNOWN[of] else [f"must be a standard resource for {of}"])


def _resources(rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    """Check the names and the amounts of resources of ``containers`` or a ``quota``; with ``names``, only these."""
    of, *only = rule.arguments
    for name, text in (value or {}).items():
        where, number = f"{path}[{name}]", read_quantity(text)
        yield from (FieldError.invalid(where, name, problem) for problem in _name_problems(name, of))
        if not only and number < 0:
            yield FieldError.invalid(where, text, _NOT_NEGATIVE)
        if not only and number % 1 and (name in _KNOWN["counted"] or _is_extended(name) or name.startswith("count/")):
            yield FieldError.invalid(where, text, "must be an integer")


def _non_negative(_rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    for name, text in (value or {}).items():
        if read_quantity(text) < 0:
            yield FieldError.invalid(f"{path}.{name}", text, _NOT_NEGATIVE)


def _limited(_rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that the requests of a container are at most its limits."""
    limits, requests = value.get("limits") or {}, value.get("requests") or {}
    for name, text in requests.items():
        if name not in limits:
            if _is_fixed(name):
                yield FieldError.required(f"{path}.limits", "Limit must be set for non overcommitable resources")
            continue
        asked, most = read_quantity(text), read_quantity(limits[name])
        if asked > most or (_is_fixed(name) and asked != most):
            word = "equal to" if _is_fixed(name) else "less than or equal to"
            yield FieldError.invalid(f"{path}.requests", text, f"must be {word} {name} limit of {limits[name]}")
    names = limits.keys() | requests.keys()
    if any(name.startswith("hugepages-") for name in names) and not names & {"cpu", "memory"}:
        yield FieldError.forbidden(path, "HugePages require cpu or memory")


def _limit_range(_rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    """Check the order of the amounts of a limit."""
    amounts = {key: value.get(key) or {} for key in ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio")}
    for name in dict.fromkeys(name for each in amounts.values() for name in each):
        found = {key: each[name] for key, each in amounts.items() if name in each}
        for low, high, at, show, words in _ORDER:
            if low in found and high in found and read_quantity(found[low]) > read_quantity(found[high]):
                yield FieldError.invalid(f"{path}.{at}[{name}]", found[show], words.format(found[low], found[high]))
        ratio = found.get("maxLimitRequestRatio")
        if ratio and read_quantity(ratio) < 1:
            where = f"{path}.maxLimitRequestRatio[{name}]"
            yield FieldError.invalid(where, ratio, f"ratio {ratio} is less than 1")


def _scoped(_rule: FieldRule, place: ValuePlace, value: Any, _path: str) -> Findings:
    """Check that a resource of a quota can have its scopes."""
    scopes = place.value.get("scopes") or ()
    for scope in scopes:
        allowed = _KNOWN.get(scope, _KNOWN["quota"] - _KNOWN["counted"] | {"pods"})
        if value in _KNOWN["quota"] - allowed:
            yield FieldError.invalid(f"{place.path}.scopes", scopes, "unsupported scope applied to resource")


# Webhook configurations and policies.


def _match_condition(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that an expression compiles, unless it is one of the stored ones at a path."""
    source = (value or "").strip()
    if source and value not in getter(rule.arguments[0])(place):
        try:
            check_condition(source)
        except CompileError as error:
            yield FieldError.invalid(path, source, str(error))


def _webhook_resources(_rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    """Check that no resource of a rule is covered by another one."""
    whole: set[str] = set()
    everywhere: set[str] = set()
    resources: list[str] = value or []
    for index, resource in enumerate(resources):
        plural, slash, below = resource.partition("/")
        if not slash:
            continue
        for covered, name in ((plural in whole, f"{plural}/*"), (below in everywhere, f"*/{below}")):
            if covered:
                words = f"if '{name}' is present, must not specify {resource}"
                yield FieldError.invalid(f"{path}[{index}]", resource, words)
        whole |= {plural} if below == "*" else set()
        everywhere |= {below} if plural == "*" else set()
    if "*" in resources and any("/" not in each and each != "*" for each in resources):
        words = "if '*' is present, must not specify other resources without subresources"
        yield FieldError.invalid(path, value, words)


def _webhook_url(_rule: FieldRule, _place: ValuePlace, value: Any, path: str) -> Findings:
    parts, form = urlsplit(value or "https://host"), "; desired format: https://host[/path]"
    user, at, _ = parts.netloc.rpartition("@")
    for wrong, shown, words in (
        (parts.scheme != "https", parts.scheme, f"'https' is the only allowed URL scheme{form}"),
        (not parts.netloc, "", f"host must be specified{form}"),
        (at, user, "user information is not permitted in the URL"),
        (parts.fragment, parts.fragment, "fragments are not permitted in the URL"),
        (parts.query, parts.query, "query parameters are not permitted in the URL"),
    ):
        if wrong:
            yield FieldError.invalid(path, shown, words)


_NAMED: tuple[Check, ...] = (
    *(_limit_range, _limited, _non_negative, _resources, _scoped),
    *(_match_condition, _webhook_resources, _webhook_url),
    *(_in, _known, _only, _unique, _unknown, _one_per_family, _percent, _port, _range),
    *(_annotations, _fixed, _json, _labels, _generated, _host_ports, _indexes, _stays_terminated),
)
CHECKS: dict[str, Check] = {
    **{name: _form(problems) for name, problems in FORMS.items()},
    **{name: _tested(test, error) for name, (test, error) in _TESTS.items()},
    **{check.__name__.strip("_").replace("_", "-"): check for check in _NAMED},
    "immutable": _has_changed,
    "max": _bound("must be less than or equal to", lambda value, limit: bool(value > limit)),
    "min": _bound("must be greater than or equal to", lambda value, limit: bool(value < limit)),
    "more-than": _bound("must be greater than", lambda value, limit: bool(value <= limit)),
}
