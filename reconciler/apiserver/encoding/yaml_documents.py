"""YAML documents of request bodies, read as kube-apiserver reads them: bounded in their nesting and their aliases."""

from __future__ import annotations

import functools
import math
from typing import Any

from reconciler.apiserver.encoding.text import quoted
from reconciler.serving import MAX_LEVELS

__all__ = ["InvalidYAML", "read_blocks"]

_FEW_ALIASES, _FEW_NODES = 100, 1000
_LOW, _HIGH = 400_000, 4_000_000


class InvalidYAML(ValueError):
    """A body that is not YAML, or YAML that has no form in JSON."""


def read_blocks(body: bytes) -> tuple[Any, list[str]]:
    """Return the value of a YAML document, and a complaint about each key that stands twice in a map.

    Raises:
        InvalidYAML: the body is not YAML, is nested too deeply, or multiplies itself by aliases.
    """
    import yaml

    try:
        loader = _loader()(body)
        return _plain(loader.get_single_data()), loader.doubled
    except InvalidYAML:
        raise
    except yaml.YAMLError as error:
        raise InvalidYAML(str(error)) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The library's constructors raise any of these for a scalar that does not fit its tag.
        raise InvalidYAML(f"yaml: {error}") from None


@functools.cache
def _loader() -> type[Any]:
    """Return a loader that leaves dates as strings, as Kubernetes does, and notes keys that stand twice in a map."""
    import yaml
    from yaml.composer import Composer
    from yaml.constructor import SafeConstructor
    from yaml.resolver import Resolver

    # The parser in C is several times faster. Its own composer is not used: it recurses without a bound.
    parser: Any = getattr(yaml, "cyaml").CParser if yaml.__with_libyaml__ else None  # noqa: B009 - it is not in the stubs
    bases = (yaml.SafeLoader,) if parser is None else (Composer, parser, SafeConstructor, Resolver)

    class Loader(*bases):  # type: ignore[misc]
        def __init__(self, body: bytes) -> None:
            for base in bases:
                base.__init__(self, *([body] if base in (parser, yaml.SafeLoader) else ()))
            self.doubled: list[str] = []
            self.open: list[str | None] = []

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if event.anchor is not None and event.anchor in self.open and isinstance(event, yaml.AliasEvent):
                raise InvalidYAML(f"yaml: anchor '{event.anchor}' value contains itself")
            self.open.append(event.anchor)
            if len(self.open) > MAX_LEVELS + 1:
                raise InvalidYAML("yaml: exceeded max depth")
            node = super().compose_node(parent, index)
            self.open.pop()
            return node

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None:
                _check_aliases(node)
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen:
                    line = key.start_mark.line + 1
                    self.doubled.append(f'line {line}: key "{key.value}" already set in map')
                seen.add(key.value)
            return super().construct_mapping(node, deep)

        yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's attribute
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    return Loader


def _check_aliases(root: Any) -> None:
    """Refuse a document that nests too deeply through aliases, or mostly repeats itself.

    The bounds of the repetition are go-yaml's.
    """
    known: dict[int, tuple[int, int]] = {}

    def measure(node: Any) -> tuple[int, int]:
        """Return how many nodes a node stands for, and how many levels."""
        if id(node) not in known:
            inner = node.value if isinstance(node.value, list) else ()
            parts = [measure(part) for each in inner for part in (each if isinstance(each, tuple) else (each,))]
            levels = max([below for _, below in parts], default=0) + isinstance(node.value, list)
            if levels > MAX_LEVELS:
                raise InvalidYAML("yaml: exceeded max depth")
            known[id(node)] = 1 + sum(count for count, _ in parts), levels
        return known[id(node)]

    nodes, _ = measure(root)
    repeated = nodes - len(known)
    share = 0.99 - 0.89 * min(1.0, max(0.0, (nodes - _LOW) / (_HIGH - _LOW)))
    if repeated > _FEW_ALIASES and nodes > _FEW_NODES and repeated > share * nodes:
        raise InvalidYAML("yaml: document contains excessive aliasing")


def _plain(value: Any) -> Any:
    """Return a value in the types of JSON; whatever aliases share is copied."""
    if isinstance(value, dict):
        return {_key(key, member): _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidYAML(f"json: unsupported value: {_special(value)}")
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    if isinstance(value, int) and value.bit_length() > 1024:
        raise InvalidYAML("yaml: the number is out of range")
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        value.encode()  # a lone surrogate, which only the parser in Python lets pass, raises ValueError
    if value is None or isinstance(value, (str, int)):
        return value
    raise InvalidYAML(f"yaml: a {type(value).__name__} has no form in JSON")


def _key(key: Any, member: Any) -> str:
    if isinstance(key, str):
        return str(_plain(key))
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int) and key.bit_length() <= 1024:
        return str(key)
    if isinstance(key, float):
        return f"{key:g}" if math.isfinite(key) else f"{_special(key).lower().replace('+', '').replace('-', '-.')}"
    kind = "%!s(<nil>), key: <nil>" if key is None else f"{type(key).__name__}, key: {key}"
    raise InvalidYAML(f"unsupported map key of type: {kind}, value: {quoted(_plain(member))}")


def _special(value: float) -> str:
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
