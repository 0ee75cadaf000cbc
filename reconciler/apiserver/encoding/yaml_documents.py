"""YAML in request bodies, decoded as kube-apiserver decodes it, with limits on nesting and aliases."""

from __future__ import annotations

import functools
import math
from typing import Any

from reconciler.apiserver.encoding.text import quoted
from reconciler.serving import MAX_LEVELS

__all__ = ["InvalidYAML", "decode_yaml"]

_ALLOWED_ALIASES, _SMALL_DOCUMENT = 100, 1000
_STRICTER_FROM, _STRICTEST_FROM = 400_000, 4_000_000


class InvalidYAML(ValueError):
    """Malformed YAML, or YAML that JSON cannot express."""


def decode_yaml(body: bytes) -> tuple[Any, list[str]]:
    """Decode a YAML document; return its value and a warning for each duplicate key.

    Raises:
        InvalidYAML: the body is not valid YAML, is nested too deeply, or is expanded excessively by aliases.
    """
    import yaml

    try:
        loader = _loader()(body)
        return _plain(loader.get_single_data()), loader.duplicate_keys
    except InvalidYAML:
        raise
    except yaml.YAMLError as error:
        raise InvalidYAML(str(error)) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML's constructors raise any of these for a scalar that does not fit its tag.
        raise InvalidYAML(f"yaml: {error}") from None


@functools.cache
def _loader() -> type[Any]:
    """Return a loader class that keeps dates as strings, as Kubernetes does, and records duplicate keys."""
    import yaml
    from yaml.composer import Composer
    from yaml.constructor import SafeConstructor
    from yaml.resolver import Resolver

    # The C parser is several times faster. Its own composer is not used: it recurses without a limit.
    parser: Any = getattr(yaml, "cyaml").CParser if yaml.__with_libyaml__ else None  # noqa: B009 - it is not in the stubs
    bases = (yaml.SafeLoader,) if parser is None else (Composer, parser, SafeConstructor, Resolver)

    class Loader(*bases):  # type: ignore[misc]
        def __init__(self, body: bytes) -> None:
            for base in bases:
                base.__init__(self, *([body] if base in (parser, yaml.SafeLoader) else ()))
            self.duplicate_keys: list[str] = []
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
                    self.duplicate_keys.append(f'line {line}: key "{key.value}" already set in map')
                seen.add(key.value)
            return super().construct_mapping(node, deep)

        yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's attribute
            first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    return Loader


def _check_aliases(root: Any) -> None:
    """Reject a document that is nested too deeply through aliases or consists mostly of repetition.

    The limits on repetition are those of go-yaml.
    """
    known: dict[int, tuple[int, int]] = {}

    def measure(node: Any) -> tuple[int, int]:
        """Return the number of nodes and levels that a node expands to."""
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
    share = 0.99 - 0.89 * min(1.0, max(0.0, (nodes - _STRICTER_FROM) / (_STRICTEST_FROM - _STRICTER_FROM)))
    if repeated > _ALLOWED_ALIASES and nodes > _SMALL_DOCUMENT and repeated > share * nodes:
        raise InvalidYAML("yaml: document contains excessive aliasing")


def _plain(value: Any) -> Any:
    """Return a value made of JSON types; values shared by aliases are copied."""
    if isinstance(value, dict):
        return {_key(key, member): _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidYAML(f"json: unsupported value: {_non_finite(value)}")
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    if isinstance(value, int) and value.bit_length() > 1024:
        raise InvalidYAML("yaml: the number is out of range")
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        value.encode()  # raises ValueError for a lone surrogate, which only the Python parser accepts
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
        return f"{key:g}" if math.isfinite(key) else f"{_non_finite(key).lower().replace('+', '').replace('-', '-.')}"
    kind = "%!s(<nil>), key: <nil>" if key is None else f"{type(key).__name__}, key: {key}"
    raise InvalidYAML(f"unsupported map key of type: {kind}, value: {quoted(_plain(member))}")


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
