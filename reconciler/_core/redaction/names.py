"""Names of values, and whether such a value is a secret; the places where a secret may be.

A value after such a name may not be secret: a reference, a placeholder, words of a sentence, a number.

The patterns that recognize secrets would try every place. Hints are fixed strings, which are found quickly, whatever
the text is. The patterns are then tried only at the hints.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Literal


def _any_of(texts: set[bytes]) -> bytes:
    """Return a pattern of any of the texts, in which a beginning that several share stands once."""
    if b"" in texts:
        return b""
    rests: dict[bytes, set[bytes]] = {}
    for text in texts:
        rests.setdefault(re.escape(text[:1]), set()).add(text[1:])
    return b"(?:%b)" % b"|".join(first + _any_of(rest) for first, rest in rests.items())


class Hints:
    """Fixed strings, one of which occurs, in any case, wherever a pattern can match.

    Each character of a string is one byte in a search, so that places are the same.

    Args:
        hints: the strings, in ASCII and without ``?``.

    Attributes:
        texts: as given.
    """

    def __init__(self, *hints: str) -> None:
        self.texts = hints

    @functools.cached_property
    def _search(self) -> Callable[[bytes, int], re.Match[bytes] | None]:  # when it is needed: it takes milliseconds
        return re.compile(_any_of({hint.lower().encode() for hint in self.texts})).search

    def is_in(self, text: str) -> bool:
        """Return whether there is a hint in a string."""
        return self._search(text.encode("ascii", "replace").lower(), 0) is not None

    def starts(self, text: str) -> list[int]:
        """Return the starts of the hints, in order."""
        folded = text.encode("ascii", "replace").lower()
        places: list[int] = []
        while found := self._search(folded, places[-1] + 1 if places else 0):
            places.append(found.start())
        return places


_CONTINUED = re.compile(r"'\\{1,16}''|''")

BLANK = r"(?:[^\S\r\n]|\\{1,16}(?:u00|x)[aA]0)"
"""Space within a line; a no-break one may be escaped."""

PLACEHOLDER = "[REDACTED]"
"""The text that replaces a secret."""


def closing_quote(text: str, begin: int, depth: int, sign: str) -> int:
    """Return the end of a quotation whose marks have `depth` backslashes before them; the end of the text if unclosed.

    A mark with fewer backslashes ends the surrounding quotation, and so this one too. A mark with more backslashes is
    escaped, unless they are complete escaped backslashes plus its own.
    """
    position = begin
    while (found := text.find(sign, position)) >= 0:
        run = backslashes_before(text, found, begin)
        if run < depth:
            return found - run
        if (run - depth) % (2 * (depth + 1)) == 0:
            if sign == "'" and depth == 0 and (more := _continued(text, found)):
                position = found + more
                continue
            return found - depth
        position = found + 1
    return len(text)


def _continued(text: str, position: int) -> int:
    r"""Return the length of an escaped quote that continues a quotation: ``''`` in YAML and SQL, ``'\''`` in shells."""
    found = _CONTINUED.match(text, position)
    return len(found.group()) if found else 0


def backslashes_before(text: str, position: int, begin: int) -> int:
    """Return the number of backslashes right before a position and not before `begin`."""
    count = position
    while count > begin and text[count - 1] == "\\":
        count -= 1
    return position - count


NAMING = ("name", "key", "header", "path")
"""Members of a mapping that may name the value of another member, one of `NAMED`, as in the list of a Pod's ``env``."""

NAMED = frozenset({"value", "default"})

Kind = Literal["secret", "countable", "header", "weak", "mixed"]
"""What a name says about its value.

``secret``: the value is a secret. ``countable``: a secret unless it is a number (``max_tokens: 4096``). ``header``: a
secret that extends to the end of the line (``Authorization``, ``Cookie``). ``weak``: a secret only in an unambiguous
position (``auth=``). ``mixed``: a secret only if it looks random (``key=``).
"""


_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ESCAPED_LETTER = re.compile(r"%(?:25)*+([0-9a-fA-F]{2})|\\{1,16}u00([0-9a-fA-F]{2})")

_SECRET_WORDS = (
    *("password", "passwd", "pwd", "passphrase", "passcode", "secret", "token", "credential", "signature", "apikey"),
    *("accesskey", "secretkey", "privatekey", "signingkey", "encryptionkey", "masterkey", "sharedkey", "accountkey"),
    *("authkey", "mnemonic", "sessionid", "sessid"),
)
_SECRET_PLURALS = tuple(f"{word}s" for word in _SECRET_WORDS)
_WHOLE_WORDS = frozenset({"sig", "otp", "totp", "jwt"})
_WEAK_WORDS = frozenset({"auth", "pass", "sid"})
_OTHER_KEYS = frozenset({"monkey", "monkeys", "turkey", "hockey", "whiskey", "donkey", "pubkey", "hotkey", "hotkeys"})
KEY_OWNERS = frozenset(
    [
        *("access", "account", "api", "auth", "client", "consumer", "deploy", "encryption", "hmac", "host"),
        *("integration", "license", "master", "private", "secret", "service", "session", "shared", "signing", "ssh"),
        *("storage", "subscription", "tls", "webhook"),
    ]
)
NAME_HINTS = Hints(
    *("passw", "pwd", "passphrase", "passcode", "secret", "token", "credential", "signature", "key", "mnemonic"),
    *("sessionid", "sessid", "sig", "otp", "jwt", "auth", "pass", "sid", "cookie"),
    *("%", "\\u00", "-u", "--proxy-user"),  # escaped letters, and options with a login
)
"""Every name that denotes a secret contains one of these."""

_DESCRIPTIONS = frozenset(
    [
        *("age", "algorithm", "algorithms", "attempts", "bucket", "budget", "count", "counts", "dir", "directory"),
        *("enabled", "endpoint", "error", "errors", "expired", "expires", "expiration", "expiry", "failures", "field"),
        *("fields", "file", "fingerprint", "format", "hash", "hint", "in", "invalid", "len", "length", "limit"),
        *("limits", "manager", "max", "maximum", "min", "minimum", "missing", "name", "names", "namespace", "path"),
        *("paths", "per", "policies", "policy", "provider", "rate", "ref", "refs", "remaining", "requests", "required"),
        *("requirements", "reset", "retries", "rotation", "rules", "size", "status", "store", "total", "totals", "ttl"),
        *("type", "types", "uri", "url", "usage", "used", "valid", "version", "webhook"),
    ]
)
"""Words after a secret word that turn the name into something else: ``token_count``, ``password policy``."""


def kind_of_name(name: str) -> Kind | None:
    """Return what a name says about its value, or None.

    A secret word must be a part of the name or its end: ``DB_PASSWORD``, ``clientSecret``, ``authtoken``, but not
    ``monkey`` or ``tokenizer``.
    """
    return _kind_of_short_name(name[-256:])


def is_secret_name(name: str) -> bool:
    """Return whether the value of this name is a secret, as for ``dbPassword``."""
    return kind_of_name(name) not in (None, "mixed")


@functools.lru_cache(maxsize=4096)
def _kind_of_short_name(name: str) -> Kind | None:
    if "%" in name or "\\" in name:
        name = _ESCAPED_LETTER.sub(lambda found: chr(int(found[1] or found[2], 16)), name)
    parts = [part.lower() for part in _PART.findall(name)]
    for index, part in enumerate(parts):
        kind = _kind_of_part(part, parts[index - 1] if index else "")
        if kind is not None and _DESCRIPTIONS.isdisjoint(parts[index + 1 :]):
            return kind
    return None


def _kind_of_part(part: str, before: str) -> Kind | None:
    if part.endswith(("authorization", "cookie", "cookies")):
        return "header"
    if part.endswith(_SECRET_WORDS) or part in _WHOLE_WORDS or (part == "key" and before in KEY_OWNERS):
        return "secret"
    if part.endswith(_SECRET_PLURALS) or (part == "keys" and before in KEY_OWNERS):
        return "countable"
    if part.endswith(("key", "keys")) and part not in _OTHER_KEYS and before != "public":
        return "mixed"
    return "weak" if part in _WEAK_WORDS else None


def strong(kind: Kind | None, quote: str, operator: str = "") -> Kind | None:
    """Return the kind in its context: a weak name is a secret if it is quoted or followed by an equals sign."""
    if kind != "weak":
        return kind
    return "countable" if quote or "=" in operator else None


_LONGEST = 253
"""Characters of the longest name in Kubernetes."""

_PLACEHOLDER = re.compile(
    r"""(?:
        \*{3,}+ | x{4,}+ | %s | \d{1,9}+[ ]bytes | \[(?:masked|redacted|filtered|hidden)\]
      | <[^<>\n]{1,200}+> | \$\{\{[^{}\n]{1,200}+\}\} | \{\{[^{}\n]{1,200}+\}\} | \$\{[^{}\n]{1,200}+\}
      | \$\([^()\n]{1,200}+\) | \$[a-z_]{2,64}+ | your[_-]\w{1,64}+
      | true | false | nil | null | none | undefined
    )(?=[\s"'`,;)\]}&]|\Z)
    | [a-z]\w{0,64}+(?:\.\w{1,64}+){1,8}+[(\[]  # os.environ["PASSWORD"]
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SCHEME = re.compile(r"(?:basic|bearer|token)[ \t]{1,8}", re.IGNORECASE)
_PASSWORD = re.compile(r"passw|pwd|pass(?:phrase|code)|(?<![a-z])pass(?![a-z])", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][a-z]*+\Z")
_REFERENCE = re.compile(
    r"[a-z](?:[a-z]{5,}+|[a-z0-9]{0,4}+)(?:[-./](?:[a-z]{6,}+|[a-z0-9]{1,5}+))++\Z"  # prod/web-token-x7k2p
    r"|[A-Za-z_][\w.]{0,128}+[({@]"  # Token{a64f992
    r"|(?:0x[0-9a-fA-F]{1,16}+|\d{1,5}+)\Z"
)
_BETWEEN = re.compile(r"[\s{}\[\],:=\"']+")
_RANDOM = re.compile(r"[\w+/=~.:-]{16,256}+")
_RUN = re.compile(r"[A-Za-z0-9+/=_]{12,}+")


def is_placeholder(text: str, begin: int) -> bool:
    """Return whether a placeholder, a variable or a truth value starts at a place."""
    scheme = _SCHEME.match(text, begin)
    return _PLACEHOLDER.match(text, scheme.end() if scheme else begin) is not None


def is_harmless(text: str, begin: int, end: int, *, name: str, operator: str) -> bool:
    """Return whether what a name seems to have as its value is not a secret.

    A password can be any text that is not a placeholder. After other names the name of an object, such as
    ``prod/web-tls``, and a word of a sentence are harmless as well.

    Args:
        text: the text.
        begin: the start of the value.
        end: its end.
        name: the name.
        operator: what is between them; empty for an option, a tag, and items of a list.
    """
    if is_placeholder(text, begin):
        return True
    value = text[begin:end]
    if operator in ("is", "was"):  # the password is x7!k2p
        return not (len(value) >= 6 and any(map(str.isdigit, value)) and not value.isdigit())
    if len(value) > _LONGEST or _PASSWORD.search(name):
        return False
    if value[0] in "{[":
        return all(word.isalpha() or _REFERENCE.match(word) for word in _BETWEEN.split(value) if word)
    if operator == ":":
        value = (value.split(None, 1) or [""])[0].rstrip(".,:;)")
    return _REFERENCE.match(value) is not None or (operator == ":" and _WORD.match(value) is not None)


def looks_random(text: str, begin: int = 0) -> bool:
    """Return whether a long and mixed word, as keys are, starts at a place."""
    found = _RANDOM.match(text, begin)
    runs = _RUN.findall(found.group()) if found else ()
    return any(any(sign.isdigit() for sign in run) and any(sign.isalpha() for sign in run) for run in runs)
