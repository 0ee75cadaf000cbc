"""Field numbers of the protobuf messages in which the CEL engine serializes compiled expressions.

The engine offers no Python classes for them. The messages are those of ``cel/expr/syntax.proto`` and
``cel/expr/checked.proto``; of each, only the fields that are read or written here are listed.
"""

from __future__ import annotations

__all__ = [
    "CheckedExpr",
    "Comprehension",
    "Constant",
    "Envelope",
    "Expr",
    "FunctionCall",
    "Ident",
    "ListExpr",
    "ListType",
    "MapEntry",
    "MapType",
    "ParsedExpr",
    "Reference",
    "Select",
    "SourceInfo",
    "StructEntry",
    "StructExpr",
    "Type",
]


class Envelope:
    """google.protobuf.Any, around a CheckedExpr or a ParsedExpr."""

    TYPE_URL = 1
    VALUE = 2


class ParsedExpr:
    """An expression that was parsed but not type-checked."""

    EXPR = 2
    SOURCE_INFO = 3


class CheckedExpr:
    """A type-checked expression; references and types are maps by the id of an expression."""

    REFERENCE_MAP = 2
    TYPE_MAP = 3
    EXPR = 4
    SOURCE_INFO = 5


class SourceInfo:
    """The positions of expressions in the source, by id."""

    POSITIONS = 4


class MapEntry:
    """An entry of any protobuf map."""

    KEY = 1
    VALUE = 2


class Reference:
    """The name that an identifier was resolved to, or the overloads of a call."""

    NAME = 1
    OVERLOAD_ID = 3


class Type:
    """The type of an expression: one of these."""

    NULL = 2
    PRIMITIVE = 3
    WELL_KNOWN = 5
    LIST_TYPE = 6
    MAP_TYPE = 7


class ListType:
    """The type of a list."""

    ELEM_TYPE = 1


class MapType:
    """The type of a map."""

    KEY_TYPE = 1
    VALUE_TYPE = 2


class Expr:
    """An expression: an id and one of the others."""

    ID = 2
    CONST = 3
    IDENT = 4
    SELECT = 5
    CALL = 6
    LIST = 7
    STRUCT = 8
    COMPREHENSION = 9


class Constant:
    """A literal: one of these."""

    NULL = 1
    BOOL = 2
    INT64 = 3
    UINT64 = 4
    DOUBLE = 5
    STRING = 6
    BYTES = 7


class Ident:
    """An identifier."""

    NAME = 1


class Select:
    """The selection of a member, or the test ``has(operand.field)``."""

    OPERAND = 1
    FIELD = 2
    TEST_ONLY = 3


class FunctionCall:
    """A call of a function, an operator or a method; only a method has a target."""

    TARGET = 1
    FUNCTION = 2
    ARGS = 3


class ListExpr:
    """A list literal."""

    ELEMENTS = 1


class StructExpr:
    """A literal of a map or a message."""

    ENTRIES = 2


class StructEntry:
    """An entry of a map literal."""

    MAP_KEY = 3
    VALUE = 4


class Comprehension:
    """A loop, to which macros such as ``all`` and ``map`` are expanded."""

    ITER_VAR = 1
    ITER_RANGE = 2
    ACCU_VAR = 3
    ACCU_INIT = 4
    LOOP_CONDITION = 5
    LOOP_STEP = 6
    RESULT = 7
    ITER_VAR2 = 8
