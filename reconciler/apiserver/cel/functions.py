"""The CEL engine, an optional dependency: its environments, and the types and functions that Kubernetes adds to it.

Rules are compiled in one environment and run in another. The first has the types that Kubernetes adds. Since the engine
accepts no external types, each of them is a map of a type that rules cannot have otherwise. The second has the
implementations of the functions. The engine accepts no Python objects as values either, so a value of an added type is
a map with one tagged entry; equal values are equal maps.
"""

from __future__ import annotations

import base64
import functools
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from operator import itemgetter
from typing import Any

from reconciler.apiserver.cel import parsers
from reconciler.apiserver.encoding import formats
from reconciler.apiserver.encoding.text import data_file, quantity_text, read_quantity
from reconciler.errors import importing

CelType = Any
"""A type of the engine, whose stubs are not typed."""

FORMAT_TYPES = {"byte": "bytes", "date": "timestamp", "date-time": "timestamp", "duration": "duration"}
"""The types of strings that rules see as something else, by format."""
_DECLARED_RESULTS = ("bytes", "duration", "timestamp")
"""The result types that the engine must know when it runs an expression."""
_ADDED_TYPES = {
    "kubernetes.NamedFormat": "double",
    "kubernetes.Quantity": "bool",
    "kubernetes.Semver": "int",
    "kubernetes.URL": "uint",
    "net.CIDR": "bytes",
    "net.IP": "string",
}
"""The types that Kubernetes adds, each a map of strings to maps of booleans to values of this type."""
_PLAIN = re.compile(r"map\(string, map\(bool, (\w+)\)\)")
_NAMES = {inner: name for name, inner in _ADDED_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that Kubernetes adds.

    Attributes:
        name: its name in rules.
        result: the type of its result, as `cel_type` parses it.
        parameters: the types of its parameters.
        run: the implementation.
        member: whether it is a method of its first parameter.
        runs_as: the name of the implementation, if each type of parameter needs its own.
    """

    name: str
    result: str
    parameters: tuple[str, ...]
    run: Callable[..., Any]
    member: bool = True
    runs_as: str = ""


def require_engine() -> None:
    """Raise `MissingExtra` if the engine is not installed."""
    with importing(extra="cel", purpose="a CEL rule or condition on the embedded API server"):
        import cel_expr_python  # type: ignore[import-untyped]  # noqa: F401 - imported to see whether it is installed


def cel_type(name: str) -> CelType:
    """Return the type with a name as messages write it, such as ``list(string)`` or ``net.IP``."""
    from cel_expr_python import cel

    if name in _ADDED_TYPES:
        return cel.Type.Map(cel.Type.STRING, cel.Type.Map(cel.Type.BOOL, cel_type(_ADDED_TYPES[name])))
    if name.startswith("list("):
        return cel.Type.List(cel_type(name[5:-1]))
    if name.startswith("map("):
        key, _, value = name[4:-1].partition(", ")
        return cel.Type.Map(cel_type(key), cel_type(value))
    return getattr(cel.Type, name.upper())


def named_types(message: str) -> str:
    """Return an error message of the engine with the types that Kubernetes adds under their own names."""
    return _PLAIN.sub(lambda found: _NAMES.get(found[1], found[0]), message)


def checking_environment(variables: Mapping[str, CelType]) -> Any:
    """Return an environment for compiling expressions."""
    return _new_environment(variables, _extension(running=False))


@functools.cache
def running_environment() -> Any:
    """Return the environment for running expressions that were compiled in a checking environment."""
    return _new_environment({}, _extension(running=True))


def _new_environment(variables: Mapping[str, CelType], extension: Any) -> Any:
    from cel_expr_python import cel

    config = cel.NewEnvConfigFromYaml(data_file("cel/environment.yaml").decode())
    return cel.NewEnv(config=config, variables=variables, extensions=[extension])


@functools.cache
def _extension(*, running: bool) -> Any:
    """Return the functions: their declarations, or their implementations by the types that are known when they run."""
    from cel_expr_python import cel

    overloads: dict[tuple[str, bool, tuple[str, ...]], Any] = {}
    for function in functions():
        name = function.runs_as if running and function.runs_as else function.name
        types, result = function.parameters, function.result
        if running:
            types = tuple(map(_runtime_type, types))
            result = result if result in _DECLARED_RESULTS else "dyn"
        signature = (name, function.member, types)
        if signature not in overloads:
            identity = function.runs_as or f"k8s_{name}_{len(overloads)}"
            parameters = [cel_type(each) for each in types]
            run: dict[str, Any] = {"impl": function.run} if running else {}
            overloads[signature] = cel.Overload(identity, cel_type(result), parameters, function.member, **run)
    by_name: dict[str, list[Any]] = {}
    for (name, *_), overload in overloads.items():
        by_name.setdefault(name, []).append(overload)
    return cel.CelExtension("kubernetes", [cel.FunctionDecl(name, found) for name, found in by_name.items()])


def _runtime_type(name: str) -> str:
    """Return the type of a parameter as far as it is known when an expression runs."""
    return "map(string, dyn)" if name in _ADDED_TYPES else "list(dyn)" if name.startswith("list(") else name


Tagged = dict[str, Any]
_QUANTITY, _VERSION, _URL = "kubernetes.Quantity", "kubernetes.Semver", "kubernetes.URL"
_FORMAT, _IP, _CIDR = "kubernetes.NamedFormat", "net.IP", "net.CIDR"
_ORDERED = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")
Problems = Callable[[str], list[str]]
_LABEL_1035, _SUBDOMAIN = (functools.partial(formats.form_problems, form) for form in ("label-1035", "subdomain"))


def _tagged(tag: str, read: Callable[..., Any]) -> Callable[..., Tagged]:
    """Return a function that makes a value of an added type from what a parser reads."""
    return lambda *given: {tag: str(read(*given))}


def _reading(tag: str, read: Callable[[str], Any]) -> Callable[[Callable[[Any], Any]], Callable[[Tagged], Any]]:
    """Return a function that makes a function of a value of an added type from one of what its parser reads."""
    return lambda of: lambda value: of(read(value[tag]))


# Lists.


def _apart(name: str, kind: str) -> str:
    """Return the name of an implementation of its own, which a type that the engine must know needs."""
    return f"{name}_{kind}" if kind in ("duration", "timestamp") else ""


def _is_sorted(items: list[Any]) -> bool:
    return all(one <= other for one, other in itertools.pairwise(items))


def _extreme(choose: Callable[[list[Any]], Any], name: str) -> Callable[[list[Any]], Any]:
    def of(items: list[Any]) -> Any:
        if not items:
            raise ValueError(f"{name} called on empty list")
        return choose(items)

    return of


def _last_index(items: list[Any], item: Any) -> int:
    return len(items) - 1 - items[::-1].index(item) if item in items else -1


# Regular expressions.


def _find(text: str, pattern: str) -> str:
    match = formats.compiled_pattern(pattern).search(text)
    return match.group(0) if match else ""


def _find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    found = [match.group(0) for match in formats.compiled_pattern(pattern).finditer(text)]
    return found if most < 0 else found[:most]


# Quantities and versions.


_quantity = _tagged("quantity", lambda text: quantity_text(read_quantity(text)))


def _number(value: Tagged) -> Decimal:
    return Decimal(value["quantity"])


def _integer(value: Tagged) -> int:
    number = _number(value)
    if number != number.to_integral_value() or not -(2**63) <= number < 2**63:
        raise ValueError("cannot convert value to integer")
    return int(number)


def _combine(sign: int) -> Callable[[Tagged, Any], Tagged]:
    def combine(one: Tagged, other: Any) -> Tagged:
        number = Decimal(other) if isinstance(other, int) else _number(other)
        with localcontext() as context:
            context.prec = 100
            return {"quantity": quantity_text(_number(one) + sign * number)}

    return combine


def _compare(one: Tagged, other: Tagged) -> int:
    left, right = _order(one), _order(other)
    return int(left > right) - int(left < right)


def _order(value: Tagged) -> Any:
    return _number(value) if "quantity" in value else parsers.version_order(value["semver"])


def _comparisons(kind: str) -> list[Function]:
    both = (kind, kind)
    return [
        Function("isLessThan", "bool", both, lambda one, other: _compare(one, other) < 0),
        Function("isGreaterThan", "bool", both, lambda one, other: _compare(one, other) > 0),
        Function("compareTo", "int", both, _compare),
    ]


_version = _tagged("semver", lambda text, normalize=False: parsers.read_version(text, normalize=normalize))


def _part(index: int) -> Callable[[Tagged], int]:
    return lambda value: int(parsers.version_order(value["semver"])[index])


# URLs, addresses and networks.


def _url(text: str) -> Tagged:
    try:
        parsers.read_url(text)
    except ValueError as error:
        raise ValueError(f"URL parse error during conversion from string: {error}") from None
    return {"url": text}


_ip, _cidr = _tagged("ip", parsers.read_address), _tagged("cidr", parsers.read_network)
_URL_PARTS = ("getScheme", "getHost", "getHostname", "getPort", "getEscapedPath")
_of_url, _of_ip = _reading("url", parsers.read_url), _reading("ip", parsers.read_address)
_of_cidr = _reading("cidr", parsers.read_network)


def _text(value: Tagged) -> str:
    return str(value.get("ip") or value["cidr"])


def _given(value: Any, read: Callable[[str], Any]) -> Any:
    if not isinstance(value, str):
        return read(_text(value))
    try:
        return read(value)
    except ValueError:
        raise ValueError("no such overload") from None


def _contains_ip(value: Tagged, other: Any) -> bool:
    return _given(other, parsers.read_address) in parsers.read_network(value["cidr"]).network


def _contains_cidr(value: Tagged, other: Any) -> bool:
    outer, inner = parsers.read_network(value["cidr"]).network, _given(other, parsers.read_network).network
    return outer.version == inner.version and bool(inner.subnet_of(outer))


# Named formats. Rewriting turns the results into optionals.


def _prefix(problems: Problems) -> Problems:
    """Return the check of the prefix of a generated name, which may end with a dash."""
    return lambda text: problems(text[:-2] + "a" if len(text) > 1 and text.endswith("-") else text)


def _uri(text: str) -> list[str]:
    try:
        parsers.check_request_uri(text)
    except ValueError as error:
        return [str(error)]
    return []


_NAMED_FORMATS: dict[str, Problems] = {
    "byte": formats.unless(lambda text: bool(text) and formats.FORMATS["byte"](text), "invalid base64"),
    "date": formats.unless(formats.FORMATS["date"], "invalid date"),
    "datetime": formats.unless(formats.FORMATS["datetime"], "invalid datetime"),
    "dns1035Label": _LABEL_1035,
    "dns1035LabelPrefix": _prefix(_LABEL_1035),
    "dns1123Label": formats.label_problems,
    "dns1123LabelPrefix": _prefix(formats.label_problems),
    "dns1123Subdomain": _SUBDOMAIN,
    "dns1123SubdomainPrefix": _prefix(_SUBDOMAIN),
    "labelValue": functools.partial(formats.form_problems, "label-value"),
    "qualifiedName": formats.qualified_name_problems,
    "uri": _uri,
    "uuid": formats.unless(formats.FORMATS["uuid"], "does not match the UUID format"),
}
"""The check of each format that ``format.named`` knows."""


def functions() -> list[Function]:
    """Return the functions to register with the engine."""
    text, two_texts = ("string",), ("string", "string")
    quantity, version, url, address, network = (_QUANTITY,), (_VERSION,), (_URL,), (_IP,), (_CIDR,)
    return [
        *_runtime_functions(),
        # lists
        *(Function("isSorted", "bool", (f"list({kind})",), _is_sorted) for kind in _ORDERED),
        *(
            Function(name, kind, (f"list({kind})",), _extreme(choose, name), runs_as=_apart(name, kind))
            for kind in _ORDERED
            for name, choose in (("min", min), ("max", max))
        ),
        *(Function("sum", kind, (f"list({kind})",), sum) for kind in ("int", "uint", "double")),
        Function("sum", "duration", ("list(duration)",), lambda items: sum(items, timedelta()), runs_as="sum_duration"),
        Function("indexOf", "int", ("list(dyn)", "dyn"), lambda items, one: items.index(one) if one in items else -1),
        Function("lastIndexOf", "int", ("list(dyn)", "dyn"), _last_index),
        # regular expressions
        Function("find", "string", two_texts, _find),
        Function("findAll", "list(string)", two_texts, _find_all),
        Function("findAll", "list(string)", (*two_texts, "int"), _find_all),
        # quantities
        Function("quantity", _QUANTITY, text, _quantity, False),
        Function("isQuantity", "bool", text, formats.accepts(_quantity), False),
        Function("sign", "int", quantity, lambda value: (_number(value) > 0) - (_number(value) < 0), False),
        Function("isInteger", "bool", quantity, formats.accepts(_integer)),
        Function("asInteger", "int", quantity, _integer),
        Function("asApproximateFloat", "double", quantity, lambda value: float(_number(value))),
        *(
            Function(name, _QUANTITY, (_QUANTITY, other), _combine(sign))
            for name, sign in (("add", 1), ("sub", -1))
            for other in (_QUANTITY, "int")
        ),
        *_comparisons(_QUANTITY),
        # versions
        *(Function("semver", _VERSION, given, _version, False) for given in (text, ("string", "bool"))),
        *(
            Function("isSemver", "bool", given, formats.accepts(_version), False)
            for given in (text, ("string", "bool"))
        ),
        *(Function(name, "int", version, _part(index)) for index, name in enumerate(("major", "minor", "patch"))),
        *_comparisons(_VERSION),
        # URLs
        Function("isURL", "bool", text, formats.accepts(parsers.check_request_uri), False),
        Function("url", _URL, text, _url, False),
        *(Function(name, "string", url, _of_url(itemgetter(name))) for name in _URL_PARTS),
        Function("getQuery", "map(string, list(string))", url, _of_url(itemgetter("getQuery"))),
        # addresses
        Function("isIP", "bool", text, formats.accepts(_ip), False),
        Function("ip", _IP, text, _ip, False),
        Function("ip.isCanonical", "bool", text, lambda text: str(parsers.read_address(text)) == text, False),
        Function("string", "string", address, _text, False),
        Function("family", "int", address, _of_ip(lambda address: address.version)),
        Function("isUnspecified", "bool", address, _of_ip(lambda address: address.is_unspecified)),
        Function("isLoopback", "bool", address, _of_ip(lambda address: address.is_loopback)),
        Function("isLinkLocalMulticast", "bool", address, _of_ip(parsers.is_link_local_multicast)),
        Function("isLinkLocalUnicast", "bool", address, _of_ip(lambda address: address.is_link_local)),
        Function("isGlobalUnicast", "bool", address, _of_ip(parsers.is_global_unicast)),
        # networks
        Function("isCIDR", "bool", text, formats.accepts(_cidr), False),
        Function("cidr", _CIDR, text, _cidr, False),
        Function("string", "string", network, _text, False),
        Function("ip", _IP, network, _of_cidr(lambda found: {"ip": str(found.ip)})),
        Function("masked", _CIDR, network, _of_cidr(lambda found: {"cidr": str(found.network)})),
        Function("prefixLength", "int", network, _of_cidr(lambda found: found.network.prefixlen)),
        *(Function("containsIP", "bool", (_CIDR, other), _contains_ip) for other in ("string", _IP)),
        *(Function("containsCIDR", "bool", (_CIDR, other), _contains_cidr) for other in ("string", _CIDR)),
        # named formats
        *(
            Function(f"format.{name}", _FORMAT, (), functools.partial(dict, format=name), False)
            for name in _NAMED_FORMATS
        ),
        Function("format.named", "dyn", text, lambda name: {"format": name} if name in _NAMED_FORMATS else {}, False),
        Function("validate", "dyn", (_FORMAT, "string"), lambda value, text: _NAMED_FORMATS[value["format"]](text)),
    ]


# The functions that rewritten expressions call.

_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ns|us|µs|ms|s|m|h|d|w|[a-z]{3,})")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SECONDS |= {"nan": 1e-9, "mic": 1e-6, "mil": 1e-3, "sec": 1, "min": 60, "hou": 3600, "day": 86400, "wee": 604800}
"""The seconds of units; of a long one, by its first three letters."""


def _runtime_functions() -> list[Function]:
    """Return the functions that no rule names: those of rewritten calls, and the conversions of strings."""
    entries = ("map(dyn, dyn)", "map(dyn, dyn)")
    pair = ("map(dyn, dyn)", "dyn", "dyn")
    lists = ("list(dyn)", "list(dyn)", "list(dyn)")
    return [
        Function("@mapInsert", "map(dyn, dyn)", pair, lambda into, key, value: _inserted(into, {key: value}), False),
        Function("@mapInsert", "map(dyn, dyn)", entries, _inserted, False),
        Function("@same", "bool", lists, _same, False),
        Function("@differ", "bool", lists, lambda one, other, keys: not _same(one, other, keys), False),
        Function("@join", "list(dyn)", lists, _joined, False),
        *(
            Function(f"@{form}", kind, ("dyn",), _if_string(_CONVERSIONS[form]), False)
            for form, kind in FORMAT_TYPES.items()
        ),
    ]


def _inserted(into: dict[Any, Any], more: dict[Any, Any]) -> dict[Any, Any]:
    for key in more:
        if key in into:
            raise ValueError(f"insert failed: key {key} already exists")
    return {**into, **more}


def _same(one: list[Any], other: list[Any], keys: list[str]) -> bool:
    """Return whether two lists have equal items in any order; items of a list with keys are identified by them."""
    if len(one) != len(other):
        return False
    if keys:
        known = {_key(item, keys): item for item in other}
        return all(_key(item, keys) in known and known[_key(item, keys)] == item for item in one)
    return all(item in other for item in one)


def _joined(one: list[Any], other: list[Any], keys: list[str]) -> list[Any]:
    """Return the union of two lists; of two items with the same key, the second list's is kept."""
    if not keys:
        return one + [item for item in other if item not in one]
    found = {_key(item, keys): item for item in one}
    return list({**found, **{_key(item, keys): item for item in other}}.values())


def _key(item: dict[str, Any], keys: list[str]) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in keys)


def _if_string(convert: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return a conversion that leaves alone what was already converted."""
    return lambda value: convert(value) if isinstance(value, str) else value


def _duration(text: str) -> timedelta:
    seconds = 0.0
    for number, unit in _DURATION_PART.findall(text.lstrip("+-")):
        seconds += float(number) * _SECONDS[unit[:3]]
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)


_CONVERSIONS: Mapping[str, Callable[[str], Any]] = {
    "byte": base64.b64decode,
    "date": lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC),
    "date-time": lambda text: datetime.fromisoformat(text.upper()),
    "duration": _duration,
}
