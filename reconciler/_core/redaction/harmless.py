"""Values after the name of a secret that are not secret: references, placeholders, words of a sentence, numbers."""

from __future__ import annotations

import re

__all__ = ["is_harmless", "is_placeholder", "looks_random"]

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
