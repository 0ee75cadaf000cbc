"""Redaction of values by the name before them, in many notations: assignments, YAML, XML, command lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from reconciler._core.redaction.names import (
    BLANK,
    KEY_OWNERS,
    NAMING,
    PLACEHOLDER,
    Kind,
    closing_quote,
    is_harmless,
    is_placeholder,
    kind_of_name,
    looks_random,
    strong,
)

STRUCTURE_LIMIT = 4096
"""Maximum characters of a mapping or list under a secret name that are redacted outside JSON."""

REPEATED_LIMIT = 16
"""Maximum values of one text that are searched elsewhere in it."""

REPEATED_LENGTH = 8
"""Minimum characters of such a value; a shorter one would occur in other words."""

MEMBER_LIMIT = 1024
"""Characters before a name that are searched for its value."""

_LETTER = r"(?:2[dDeE]|3\d|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])"
_WORD = re.compile(rf"(?:(?<=\\)[nrt])?((?:[\w.-]|%(?:25)*+{_LETTER}|\\{{1,16}}u00{_LETTER})++)")
"""A name, without the letter of an escaped line break before it."""
_QUOTE = r"(?:\\{0,32}[\"'`]|%(?:25)*+2[27]|&(?:quot|apos|\#0{0,4}3[49]|\#[xX]0{0,4}2[27]);)"
_CLOSE = re.compile(_QUOTE)
_OPENING = rf"(?:[bBuUrRfF]{{1,2}}(?=[\"'])|@(?=[\"']))?{_QUOTE}"
_OPEN = re.compile(_OPENING)
_OPERATOR = re.compile(
    r":=|!?={1,3}>?|->|:(?!//)|(?:is|was)\b(?=[ \t])|-(?=[ \t]{1,8}[\"'])"
    r"|%(?:25)*+3[aAdD]|\\{1,16}u003[aAdD]|&\#(?:61|58|[xX]3[dDaA]);|&equals;"
)
_SPACES = re.compile(r"\s*+")
_BLANKS = re.compile(rf"{BLANK}*+")
_NEWLINE = r"(?:\r?\n|\\{1,16}n)"
"""A line break, or its escape in JSON."""
_GAP = rf"(?:\s|{_NEWLINE}){{0,64}}+"
_COMMA = re.compile(rf"\s{{0,64}},\s{{0,64}}(?={_OPENING})")
_ITS_VALUE = re.compile(
    rf"(?:{_QUOTE})?{_GAP},?{_GAP}(?:{_QUOTE})?(value|default)(?=(?:{_QUOTE})?[ \t]{{0,64}}[:=])",
    re.IGNORECASE,
)
_VALUE_BEFORE = re.compile(rf"\b(value|default)(?=(?:{_QUOTE})?[ \t]{{0,64}}[:=])", re.IGNORECASE)
_NAME_NEXT = re.compile(
    rf"(?:{_QUOTE})?(?:{_GAP},{_GAP}|(?:\s|{_NEWLINE}){{1,64}}+)(?:{_QUOTE})?"
    rf"(?:{'|'.join(NAMING)})(?:{_QUOTE})?[ \t]{{0,64}}[:=][ \t]{{0,64}}(?:{_QUOTE})?\Z",
    re.IGNORECASE,
)
_INNER = r"""(?=[^\s"'`,;&<>\\])"""
_BARE_PARTS = rf"""[^\s"'`,;&<%\\]|<(?!/)|\\{{1,32}}{_INNER}|["'`](?=\w)|[,;&]{_INNER}(?![\w.-]{{1,64}}[=:])"""
_BARE = re.compile(rf"(?:{_BARE_PARTS}|%)*+")
_BARE_ENCODED = re.compile(rf"(?:{_BARE_PARTS}|%(?!(?:25)*+26))*+")
_LINE_REST = re.compile(r"[^\n\r\\]*+")
_HEADER_PART = re.compile(r"[^\n\r\"'`\\]*+")
_WORD_BEFORE = re.compile(r"(?:(?<=\\)[nrt])?(\w{1,32})[ \t]\Z")
_TAG_REST = re.compile(r"[^<>]{0,256}>")
_BACKSLASHES = re.compile(r"\\*+")
_SCHEME_WORD = re.compile(
    r"(?:bearer|basic|token|digest|apikey|api-key|negotiate|ntlm|hawk|oauth)[ \t]++", re.IGNORECASE
)
_NUMBER = re.compile(r"[+-]?\d[\d_.,]*+(?:e[+-]?\d++)?(?![\w.-])", re.IGNORECASE)
_LITERAL = re.compile(r"(?:true|false|null|none|nil|undefined)(?![\w.-])", re.IGNORECASE)
_NOT_OPENING = re.compile(r"\s|\Z|,\s{0,8}[\"'{\[]|[}\]]\s{0,8}(?:[,}\]]|\Z)")
_BLOCK = re.compile(rf"[ \t]*+(?:[|>][-+\d]{{0,2}})?[ \t]*+{_NEWLINE}")
_BLOCK_LINE = re.compile(rf"([ \t]*+)((?:[^\n\\]|\\{{1,16}}+(?!n))*+){_NEWLINE}?")
_MAPPING = re.compile(r":(?:\s|\Z)")
_STRUCTURE = re.compile(r"[{}\[\]\n]")
_QUERY_SIGN = re.compile(r"(?:[?&]|%(?:25){0,4}(?:26|3[fF])|&amp;)\Z")
USER_FLAGS = frozenset({"-u", "-U", "--user", "--proxy-user", "--userpwd"})


def redact_values(text: str, hints: Sequence[int], known: set[str]) -> str:
    """Replace the values of names that denote secrets.

    Args:
        text: the text.
        hints: the places of `NAME_HINTS` in it.
        known: receives those that are replaced wherever they occur, without a name too.
    """
    out: list[str] = []
    done = position = 0
    for hint in hints:
        if hint < position:
            continue
        position = _start_of_words(text, hint, position)
        while position <= hint:
            found = _WORD.search(text, position)
            if found is None:
                return "".join([*out, text[done:]])
            if found.start() > hint:
                position = found.start()
                break
            position = found.end()
            name = found[1]
            if kind_of_name(name) is None and name not in USER_FLAGS:
                continue
            value = _NamedValue(text, found).find()
            if value is not None and value[0] >= done:
                begin, end, replacement = value
                if len(known) < REPEATED_LIMIT and end - begin >= REPEATED_LENGTH and text[begin:end] != PLACEHOLDER:
                    known.add(text[begin:end])
                out += [text[done:begin], replacement]
                done, position = end, max(position, end)
    return "".join([*out, text[done:]])


def _start_of_words(text: str, hint: int, after: int) -> int:
    """Find a place at or before a hint that is outside of words, and not before `after`."""
    while hint > after and (text[hint - 1].isalnum() or text[hint - 1] in "_.-%\\"):
        hint -= 1
    return hint


class _NamedValue:
    """The value after a name."""

    def __init__(self, text: str, found: re.Match[str], *, kind: Kind | None = None) -> None:
        self._text = text
        self._known: Kind | None = kind
        self._start, self._end = found.span(1)
        self._name = found[1]
        self._operator = ""
        self._strict = kind is not None  # only a placeholder is harmless

    def find(self) -> tuple[int, int, str] | None:
        """Find the value: its start, its end and its replacement; None if there is nothing to redact."""
        found = self._find()
        if found is None or found[0] >= found[1]:
            return None
        begin, end, _ = found
        if self._strict:
            is_kept = is_placeholder(self._text, begin)
        else:
            is_kept = is_harmless(self._text, begin, end, name=self._name, operator=self._operator)
        return None if is_kept else found

    def _find(self) -> tuple[int, int, str] | None:
        if self._name in USER_FLAGS:
            self._strict = True
            return self._login()
        kind = self._kind()
        if kind is None or self._text[max(0, self._start - 2) : self._start] == "${":  # ${PASSWORD:?must be set}
            return None
        self._strict = self._strict or kind == "header"
        close = _CLOSE.match(self._text, self._end)
        after = close.end() if close else self._end
        operator = _OPERATOR.match(self._text, self._blanks(after, over_lines=close is not None))
        if operator is None:
            return self._without_operator(kind, close, after)
        self._operator = operator.group()
        kind = strong(kind, close.group() if close else "", operator.group())
        if kind is None:
            return None
        if close is None and operator.group() == ":" and (block := _BLOCK.match(self._text, operator.end())):
            return self._block(block.end(), literal=block.group().strip() != "")
        begin = self._blanks(operator.end(), over_lines=close is not None)
        return self._value(begin, kind, close, operator.group())

    def _kind(self) -> Kind | None:
        kind = self._known or kind_of_name(self._name)
        if self._name.lower() in ("key", "keys"):
            sign = self._text[self._start - 1 : self._start]
            if sign in "?&;6fF" and _QUERY_SIGN.search(self._text, max(0, self._start - 12), self._start):
                return "secret"
            before = _WORD_BEFORE.search(self._text, max(0, self._start - 16), self._start) if sign in " \t" else None
            return "secret" if before and before[1].lower() in KEY_OWNERS else "mixed"
        return kind

    def _blanks(self, position: int, *, over_lines: bool) -> int:
        found = (_SPACES if over_lines else _BLANKS).match(self._text, position)
        return found.end() if found else position

    def _value(self, begin: int, kind: Kind, close: re.Match[str] | None, operator: str) -> tuple[int, int, str] | None:
        text = self._text
        opened = _OPEN.match(text, begin)
        start = opened.end() if opened is not None else begin
        if is_placeholder(text, start) or (kind == "mixed" and not looks_random(text, start)):
            return None
        if opened is not None:
            return self._quoted(opened, always=close is not None)
        number = _NUMBER.match(text, begin)
        if (number and kind == "countable") or ((close or kind == "countable") and _LITERAL.match(text, begin)):
            return None
        if kind == "header":
            return begin, self._header_end(begin), PLACEHOLDER
        if text[begin : begin + 1] in ("{", "[") and not text.startswith(PLACEHOLDER, begin):
            return begin, self._structure_end(begin, over_lines=close is not None), self._placeholder(close)
        bare = _BARE_ENCODED if "%" in operator else _BARE
        scheme = _SCHEME_WORD.match(text, begin)
        end = self._match_end(bare, scheme.end() if scheme else begin)
        if operator == ":" and close is None and end > begin and self._takes_line():
            end = self._match_end(_LINE_REST, end)
        return begin, end, self._placeholder(close) if number is not None else PLACEHOLDER

    def _match_end(self, pattern: re.Pattern[str], position: int, limit: int = sys.maxsize) -> int:
        found = pattern.match(self._text, position, limit)
        return found.end() if found else position

    def _placeholder(self, close: re.Match[str] | None) -> str:
        """Return the placeholder in the quotes of the name, for an unquoted value."""
        return f"{close.group()}{PLACEHOLDER}{close.group()}" if close is not None else PLACEHOLDER

    def _closing(self, begin: int, opened: str) -> int:
        """Return the end of a quoted value."""
        text, sign = self._text, opened[-1]
        if sign not in "\"'`":
            quote = opened.lstrip("@bBuUrRfF") if not opened.startswith(("%", "&")) else opened
            end = text.find(quote, begin)
            return end if end >= 0 else self._match_end(_BARE, begin)
        return closing_quote(text, begin, opened.count("\\"), sign)

    def _header_end(self, position: int) -> int:
        """Return the end of a header value: the end of its line, or of the quotation that contains it.

        Quotation marks behind an equals sign belong to the header, as in ``Digest username="ann"``.
        """
        text = self._text
        while True:
            position = self._match_end(_HEADER_PART, position)
            sign = self._match_end(_BACKSLASHES, position)
            if sign >= len(text) or text[sign] in "\n\r":
                return position
            if text[sign] in "\"'`":
                if text[position - 1] != "=" or _NOT_OPENING.match(text, sign + 1):
                    return position
                depth = sign - position
                position = min(closing_quote(text, sign + 1, depth, text[sign]) + depth + 1, len(text))
            elif text[sign] in "nr":
                return position
            else:
                position = sign + 1

    def _structure_end(self, begin: int, *, over_lines: bool) -> int:
        text, depth, end = self._text, 0, begin + STRUCTURE_LIMIT
        for found in _STRUCTURE.finditer(text, begin, end):
            sign = found.group()
            if sign == "\n" and not over_lines:
                return found.start()
            depth += 1 if sign in "{[" else -1 if sign in "}]" else 0
            if depth == 0 and sign != "\n":
                return found.end()
        return min(end, len(text))

    def _takes_line(self) -> bool:
        """Return whether the value extends to the end of the line: in YAML, and for values of several words."""
        return self._indentation() is not None or self._name.lower().endswith(("passphrase", "mnemonic"))

    def _indentation(self) -> int | None:
        """Return the indentation of the name's line; None if there is other text before the name."""
        begin = max(0, self._start - 256)
        before = self._text[begin : self._start]
        line = before[max(before.rfind("\n") + 1, before.rfind("\\n") + 2 if "\\n" in before else 0) :]
        if (begin and len(line) == len(before)) or line.strip(" \t-*>#|"):
            return None
        return len(line) - len(line.lstrip())

    def _block(self, begin: int, *, literal: bool) -> tuple[int, int, str] | None:
        """Return the lines of a YAML block below its name."""
        base = self._indentation()
        if base is None:
            return None
        first, last, position = None, begin, begin
        while found := _BLOCK_LINE.match(self._text, position):
            content = found[2].strip()
            inside = len(found[1]) > base or (len(found[1]) == base and content.startswith("- "))
            if found.end() == position or (content and not inside):
                break
            if content and not literal and _MAPPING.search(content):
                break
            if content:
                first = found.start(2) if first is None else first
                last = found.start(2) + len(found[2].rstrip())
            position = found.end()
        return (first, last, PLACEHOLDER) if first is not None else None

    def _quoted(self, opened: re.Match[str], *, always: bool) -> tuple[int, int, str] | None:
        """Return the text in quotation marks; None if the first mark closes a quotation around the name."""
        if not always and _NOT_OPENING.match(self._text, opened.end()):
            return None
        return opened.end(), self._closing(opened.end(), opened.group()), PLACEHOLDER

    def _without_operator(self, kind: Kind, close: re.Match[str] | None, after: int) -> tuple[int, int, str] | None:
        """Return the value of a name in a list, a tag or a command line."""
        text = self._text
        is_flag = self._name.startswith("-")
        if close is not None and (comma := _COMMA.match(text, after)):
            opening = self._start - len(close.group())
            before = text[max(0, opening - 3) : opening].rstrip("bBuUrRfF")  # of a string in Python
            if is_flag or kind == "header" or before.endswith("("):
                return self._value(comma.end(), kind, close, ",")
        if kind not in ("weak", "mixed"):
            member = _ITS_VALUE.match(text, self._end)
            value = _NamedValue(text, member, kind="secret").find() if member else self._value_before()
            if member or value:
                return value
        if kind != "weak" and text[self._start - 1 : self._start] == "<" and (tag := _TAG_REST.match(text, after)):
            return self._content(tag.end())
        begin = self._blanks(after, over_lines=False)
        if close is not None or begin == after or begin == len(text):
            return None
        if is_flag and text[begin] != "-":
            return self._value(begin, kind, None, "=")
        is_password = self._name.lower().endswith(("password", "passwd", "passphrase"))
        opened = _OPEN.match(text, begin) if is_password else None
        return self._quoted(opened, always=False) if opened is not None else None

    def _value_before(self) -> tuple[int, int, str] | None:
        """Return the value of the member right before the one with this name, as in ``value: x, name: PASSWORD``."""
        text, start = self._text, self._start
        between = _NAME_NEXT.search(text, max(0, start - 160), start)
        if between is None:
            return None
        members = list(_VALUE_BEFORE.finditer(text, max(0, start - MEMBER_LIMIT), between.start()))
        value = _NamedValue(text, members[-1], kind="secret").find() if members else None
        if value is None or not value[0] < between.start() <= value[1]:
            return None
        return value[0], between.start(), value[2]  # an escaped line break does not end a value

    def _content(self, begin: int) -> tuple[int, int, str] | None:
        """Return the content of a tag; None if this is not a tag, as in ``--token <token> --verbose``."""
        end = self._text.find("<", begin)
        if end < 0 and self._text[begin : begin + 1].isspace():
            return None
        return begin, end if end >= 0 else len(self._text), PLACEHOLDER

    def _login(self) -> tuple[int, int, str] | None:
        """Return the password in ``--user name:password``."""
        text = self._text
        close = _CLOSE.match(text, self._end)
        comma = _COMMA.match(text, close.end()) if close else None
        begin = comma.end() if comma else self._blanks(self._end, over_lines=False)
        begin += text[begin : begin + 1] == "="
        if begin == self._end:
            return None
        opened = _OPEN.match(text, begin)
        begin = opened.end() if opened else begin
        colon = text.find(":", begin, begin + 256)
        if colon < 0 or (opened is None and self._match_end(_BARE, begin, colon) < colon):
            return None
        end = self._closing(begin, opened.group()) if opened else self._match_end(_BARE, begin)
        if colon >= end or text[begin:end].replace(":", "").isdigit():
            return None
        return colon + 1, end, PLACEHOLDER


def without_password(login: str) -> str:
    """Return ``user:password`` with the password redacted."""
    name, _, password = login.partition(":")
    return f"{name}:{PLACEHOLDER}" if password and not (name + password).isdigit() else login
