"""The scalars of YAML as Kubernetes reads them. Numbers are in base 2, 8, 10 and 16, with 64 bits.

YAML 1.1 also has numbers in base 60 (``1:30``), which take quadratic time, and timestamps. Both are text here, as in
``sigs.k8s.io/yaml``.
"""

from __future__ import annotations

import math
import re
from typing import Any

_INT, _FLOAT, _TIMESTAMP = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp"))
_INTEGER = re.compile(r"[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)\Z")
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_OCTAL = re.compile(r"[-+]?0[0-7]+\Z")


def use_kubernetes_scalars(loader: Any) -> None:
    """Make a subclass of PyYAML's safe loader read numbers and timestamps as Kubernetes does."""
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT, _TIMESTAMP)]
        for first, resolvers in loader.yaml_implicit_resolvers.items()
    }
    for tag, pattern in ((_INT, _INTEGER), (_FLOAT, _DECIMAL), (_FLOAT, _NOT_FINITE)):
        loader.add_implicit_resolver(tag, pattern, list("-+.0123456789"))
    for tag in (_INT, _FLOAT):  # also for values with the tag, which no pattern has matched
        loader.add_constructor(tag, lambda self, node: _read(self.construct_scalar(node)))


def _read(text: str) -> int | float | str:
    """Read a string as a number; it stays a string if it is not one, or is out of range."""
    digits = text.replace("_", "")
    if _NOT_FINITE.match(text):
        return float(text.replace(".", ""))
    if _INTEGER.match(text):
        try:
            number = int(digits, 8 if _OCTAL.match(digits) else 0)
        except ValueError:  # more digits than Python converts, or 089
            number = 2**64
        if -(2**63) <= number < 2**64:
            return number
    if _DECIMAL.match(digits) and math.isfinite(float(digits)):
        return float(digits)
    return text
