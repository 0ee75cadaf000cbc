"""Kubeconfig files, and a check of every field that is used: an invalid value is an error with file and field."""

from __future__ import annotations

import base64
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler._core.wire import use_kubernetes_scalars
from reconciler.client.pool import is_http_address, without_password
from reconciler.errors import ConfigurationError

if TYPE_CHECKING:
    import yaml


_LARGEST_FILE = 2**24

_TEXT, _BOOL, _LIST, _TEXTS, _MAPPING = "text", "true or false", "a list", "a list of texts", "a mapping"

_FIELDS: Mapping[str, Mapping[str, str]] = {
    "cluster": {
        "server": _TEXT,
        "tls-server-name": _TEXT,
        "insecure-skip-tls-verify": _BOOL,
        "certificate-authority": _TEXT,
        "certificate-authority-data": _TEXT,
        "proxy-url": _TEXT,
        "disable-compression": _BOOL,
        "extensions": _LIST,
    },
    "context": {"cluster": _TEXT, "user": _TEXT, "namespace": _TEXT, "extensions": _LIST},
    "user": {
        "client-certificate": _TEXT,
        "client-certificate-data": _TEXT,
        "client-key": _TEXT,
        "client-key-data": _TEXT,
        "token": _TEXT,
        "tokenFile": _TEXT,
        "username": _TEXT,
        "password": _TEXT,
        "as": _TEXT,
        "as-uid": _TEXT,
        "as-groups": _TEXTS,
        "as-user-extra": _MAPPING,
        "auth-provider": _MAPPING,
        "exec": _MAPPING,
        "extensions": _LIST,
    },
    "exec": {
        "apiVersion": _TEXT,
        "command": _TEXT,
        "args": _TEXTS,
        "env": _LIST,
        "installHint": _TEXT,
        "interactiveMode": _TEXT,
        "provideClusterInfo": _BOOL,
    },
    "env": {"name": _TEXT, "value": _TEXT},
    "auth-provider": {"name": _TEXT, "config": _MAPPING},
}


def default_path() -> Path:
    """Return ``~/.kube/config``."""
    return Path("~/.kube/config").expanduser()


def paths_in(variable: str) -> list[Path]:
    """Return the paths in a value of ``KUBECONFIG``."""
    return [Path(part).expanduser() for part in variable.split(os.pathsep) if part]


@dataclass(frozen=True, slots=True)
class KubeconfigEntry:
    """A cluster, context or user, and the file that it was read from. Relative paths start from the file's folder.

    Its ``repr`` does not show the value, which may contain a token or a key.
    """

    name: str
    value: Mapping[str, Any] = field(repr=False)
    path: Path

    @property
    def folder(self) -> Path:
        """The folder of the file."""
        return self.path.parent


class Kubeconfig:
    """Merged kubeconfig files. The first of several entries with one name is used, and the first current-context.

    Args:
        paths: the files; missing ones are ignored.
        subject: what to call them in messages.

    Raises:
        ConfigurationError: none of them exists, or one cannot be read.
    """

    def __init__(self, paths: Sequence[Path], subject: str) -> None:
        self._subject = subject
        self._sections: dict[str, dict[str, KubeconfigEntry]] = {"clusters": {}, "contexts": {}, "users": {}}
        self._current = ""
        found = [(path, document) for path in paths if (document := _load(path)) is not None]
        if not found:
            raise ConfigurationError(f"{subject} does not exist: pass the path of a kubeconfig, or unset it")
        for path, document in found:
            self._add(path, document)

    def _add(self, path: Path, document: Mapping[str, Any]) -> None:
        current = document.get("current-context")
        _check(f"kubeconfig {path}: current-context", current, _TEXT)
        self._current = self._current or current or ""
        for section, entries in self._sections.items():
            what = section.removesuffix("s")
            names: set[str] = set()
            for item in _items(path, section, document.get(section)):
                name, value = item["name"], item.get(what)
                if name in names:
                    raise ConfigurationError(f"kubeconfig {path}: there are two {section} named {name!r}: remove one")
                names.add(name)
                _check(f"kubeconfig {path}: {what} {name!r}", value, _MAPPING)
                entries.setdefault(name, KubeconfigEntry(name, value or {}, path))

    def choose(self, context: str | None) -> tuple[KubeconfigEntry, KubeconfigEntry]:
        """Choose the cluster and the user of a context, by default the current one. Their paths are absolute.

        Raises:
            ConfigurationError: the context, its cluster or its user does not exist, or a field is invalid.
        """
        chosen = self._chosen(context)
        cluster = _checked(self._referred(chosen, "cluster"), "cluster")
        user = _checked(self._referred(chosen, "user"), "user")
        _check_cluster(cluster)
        _check_user(user)
        return _absolute(cluster), _absolute(user)

    def namespace(self, context: str | None) -> str:
        """Return the namespace of a context, by default the current one; ``""`` if it has none.

        Raises:
            ConfigurationError: the context does not exist, or a field is invalid.
        """
        return str(self._chosen(context).value.get("namespace") or "")

    def impersonation(self, user: KubeconfigEntry) -> dict[str, str]:
        """Return the headers for the impersonation in a user's entry, if any.

        Raises:
            ConfigurationError: the entry has several groups or extra attributes, which are not supported.
        """
        groups = user.value.get("as-groups") or []
        if len(groups) > 1 or user.value.get("as-user-extra"):
            raise ConfigurationError(
                f"{self._subject}: user {user.name!r} impersonates with several as-groups or with as-user-extra, which "
                "is not supported: use only 'as', 'as-uid' and one group"
            )
        given = {
            "Impersonate-User": user.value.get("as"),
            "Impersonate-Uid": user.value.get("as-uid"),
            "Impersonate-Group": groups[0] if groups else None,
        }
        return {name: str(value) for name, value in given.items() if value}

    def _chosen(self, context: str | None) -> KubeconfigEntry:
        contexts = self._sections["contexts"]
        known = f"its contexts are {', '.join(sorted(contexts)) or 'none'}"
        name = context or self._current
        if not name:
            raise ConfigurationError(f"{self._subject} has no current-context: choose a context, {known}")
        if name not in contexts:
            raise ConfigurationError(f"{self._subject} has no context {name!r}: {known}")
        return _checked(contexts[name], "context")

    def _referred(self, context: KubeconfigEntry, what: str) -> KubeconfigEntry:
        name = context.value.get(what) or ""
        if not name:
            raise ConfigurationError(f"{self._subject}: context {context.name!r} has no {what}: add one")
        entry = self._sections[f"{what}s"].get(name)
        if entry is None:
            raise ConfigurationError(
                f"{self._subject}: context {context.name!r} names {what} {name!r}, which does not exist: add it"
            )
        return entry


def _checked(entry: KubeconfigEntry, what: str) -> KubeconfigEntry:
    """Return an entry without its null fields, after checking the types of the others."""
    subject = f"kubeconfig {entry.path}: {what} {entry.name!r}"
    return replace(entry, value=_checked_fields(subject, what, entry.value))


def _checked_fields(subject: str, what: str, value: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: one for key, one in value.items() if one is not None}
    for name, kind in _FIELDS[what].items():
        _check(f"{subject}: {name}", fields.get(name), kind)
    for nested in ("exec", "auth-provider"):
        if nested in fields and nested in _FIELDS[what]:
            fields[nested] = _checked_fields(f"{subject}: {nested}", nested, fields[nested])
    if what == "exec":
        for number, one in enumerate(fields.get("env") or ()):
            where = f"{subject}: env[{number}]"
            _check(where, one, _MAPPING)
            variable = _checked_fields(where, "env", one or {})
            name = variable.get("name", "")
            if not name or "=" in name or "\0" in name + variable.get("value", ""):
                raise ConfigurationError(f"{where} is not a variable: it needs a name, and a value without NUL")
    if what == "auth-provider":
        for key, one in (fields.get("config") or {}).items():
            _check(f"{subject}: config: {str(key)[:80]}", one, _TEXT)
    return fields


def _check(subject: str, value: Any, kind: str) -> None:
    """Raise unless a value is absent or of the given type. The value, which may be secret, is not shown."""
    right = {
        _TEXT: isinstance(value, str),
        _BOOL: isinstance(value, bool),
        _LIST: isinstance(value, list),
        _TEXTS: isinstance(value, list) and all(isinstance(one, str) for one in value),
        _MAPPING: isinstance(value, Mapping),
    }
    if value is None or right[kind]:
        return
    hint = ""
    if kind == _TEXT and isinstance(value, (int, float)):
        hint = ": put it in quotes"
    elif kind == _BOOL and isinstance(value, str):
        hint = ": write it without quotes"
    raise ConfigurationError(f"{subject} must be {kind}, not {_KINDS.get(type(value), type(value).__name__)}{hint}")


_KINDS: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
}


def _check_cluster(cluster: KubeconfigEntry) -> None:
    subject = f"kubeconfig {cluster.path}: cluster {cluster.name!r}"
    _check_address(f"{subject} has server", cluster.value.get("server") or "", "https://host:port")
    proxy = cluster.value.get("proxy-url")
    if proxy:
        _check_address(f"{subject} has proxy-url", proxy, "http://host:port")
    _check_file(cluster, "cluster", "certificate-authority")


def _check_address(subject: str, address: str, form: str) -> None:
    if not is_http_address(address) or not address.isprintable() or " " in address:
        raise ConfigurationError(f"{subject} {without_password(address)!r}: write it as {form}")


def _check_user(user: KubeconfigEntry) -> None:
    for key in ("client-certificate", "client-key"):
        _check_file(user, "user", key)
    _check_file(user, "user", "tokenFile", data=False)
    for key in ("as", "as-uid", *(user.value.get("as-groups") or ())):
        text = user.value.get(key, "") if key in ("as", "as-uid") else key
        if not text.isprintable():
            raise ConfigurationError(
                f"kubeconfig {user.path}: user {user.name!r}: {key!r} contains a control character"
            )


def _check_file(entry: KubeconfigEntry, what: str, key: str, *, data: bool = True) -> None:
    """Check that a file, or the base64 text in its place, can be read."""
    subject = f"kubeconfig {entry.path}: {key} of {what} {entry.name!r}"
    if data and entry.value.get(f"{key}-data"):
        try:
            base64.b64decode("".join(entry.value[f"{key}-data"].split()), validate=True)
        except ValueError:
            raise ConfigurationError(f"{subject} ({key}-data) is not valid base64: copy it again") from None
    elif entry.value.get(key):
        path = entry.folder / Path(entry.value[key]).expanduser()
        try:
            path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a valid path"
            raise ConfigurationError(f"{subject} cannot be read: {path}: {reason}") from None


def _absolute(entry: KubeconfigEntry) -> KubeconfigEntry:
    """Return an entry with absolute paths. A token file takes precedence over a token, as in client-go."""
    value = dict(entry.value)
    for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
        if value.get(key):
            value[key] = str((entry.folder / Path(str(value[key])).expanduser()).absolute())
    if value.get("tokenFile"):
        value.pop("token", None)
    return replace(entry, value=value)


def _load(path: Path) -> Mapping[str, Any] | None:
    """Load the document in a file; None if the file does not exist."""
    import yaml

    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise ConfigurationError(f"kubeconfig {path} is larger than {_LARGEST_FILE // 2**20} MiB")
        document = yaml.load(content, _loader())  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"kubeconfig {path} cannot be read: {error.strerror}") from None
    except yaml.constructor.ConstructorError as error:
        why = f"it has a duplicate key or an unsupported tag: {_where(error)}"
        raise ConfigurationError(f"kubeconfig {path} cannot be used: {why}") from None
    except yaml.YAMLError as error:
        # The error may quote the line, and with it a token.
        raise ConfigurationError(f"kubeconfig {path} is not valid YAML: {_where(error)}") from None
    except (ValueError, OverflowError, RecursionError):
        raise ConfigurationError(f"kubeconfig {path} is invalid: it contains a value that cannot be read") from None
    if not isinstance(document, Mapping):
        raise ConfigurationError(f"kubeconfig {path} is invalid: it has no clusters, contexts and users")
    return document


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """Return a YAML loader that refuses duplicate keys, and merges, which a few lines can make endless."""
    import yaml

    class KubeconfigLoader(yaml.SafeLoader):
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            seen: set[str] = set()
            for key, _ in node.value:
                name = getattr(key, "value", None)
                if key.tag == "tag:yaml.org,2002:merge" or (isinstance(name, str) and name in seen):
                    raise yaml.constructor.ConstructorError(None, None, "a duplicate key, or a merge", key.start_mark)
                seen.add(str(name))

    use_kubernetes_scalars(KubeconfigLoader)
    return KubeconfigLoader


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"look at line {mark.line + 1}, column {mark.column + 1}" if mark else "look for bytes that are not text"


def _items(path: Path, section: str, items: Any) -> Sequence[Mapping[str, Any]]:
    items = items or []
    if not isinstance(items, list) or not all(isinstance(item, Mapping) and item.get("name") for item in items):
        raise ConfigurationError(
            f"kubeconfig {path} is not a kubeconfig: {section} must be a list of entries with names"
        )
    for number, item in enumerate(items):
        _check(f"kubeconfig {path}: {section}[{number}]: name", item["name"], _TEXT)
    return items
