"""Find a kubeconfig, and check it before a library stumbles over it.

`kubernetes_asyncio` reads the file in the end; what it raises for a broken one is no sentence for people, and names
whole entries, tokens included. So everything that is usually wrong is found here first.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.errors import ConfigurationError

__all__ = ["Entry", "Kubeconfig", "default_path", "paths_in"]


def default_path() -> Path:
    """Return ``~/.kube/config``."""
    return Path("~/.kube/config").expanduser()


def paths_in(variable: str) -> list[Path]:
    """Return the paths in a value of ``KUBECONFIG``."""
    return [Path(part).expanduser() for part in variable.split(os.pathsep) if part]


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold one cluster, context or user, and the folder that paths in it start from."""

    name: str
    value: Mapping[str, Any]
    folder: Path


class Kubeconfig:
    """Hold the merged files: of entries with the same name, and of current contexts, the first one counts.

    Args:
        paths: the files; those that do not exist are left out.
        subject: what a message calls them.

    Raises:
        ConfigurationError: none of them exists, or one cannot be read.
    """

    def __init__(self, paths: Sequence[Path], subject: str) -> None:
        self._subject = subject
        self.paths = [path for path in paths if path.exists()]
        if not self.paths:
            raise ConfigurationError(f"{subject} does not exist: give the path of a kubeconfig, or unset it")
        self._sections: dict[str, dict[str, Entry]] = {"clusters": {}, "contexts": {}, "users": {}}
        self._current = ""
        for path in self.paths:
            self._add(path)

    def _add(self, path: Path) -> None:
        document = _load(path)
        self._current = self._current or str(document.get("current-context") or "")
        for section, entries in self._sections.items():
            for item in _items(path, section, document.get(section)):
                value = item.get(section.removesuffix("s"))
                value = value if isinstance(value, Mapping) else {}
                entries.setdefault(str(item["name"]), Entry(str(item["name"]), value, path.parent))

    def choose(self, context: str | None) -> tuple[str, Entry, Entry]:
        """Return a context's name, cluster and user; the current context's by default.

        Raises:
            ConfigurationError: there is no such context, or it names what does not exist.
        """
        contexts = self._sections["contexts"]
        known = f"it knows {', '.join(sorted(contexts)) or 'none'}"
        name = context or self._current
        if not name:
            raise ConfigurationError(f"{self._subject} names no current-context: give context=, {known}")
        if name not in contexts:
            raise ConfigurationError(f"{self._subject} has no context {name!r}: {known}")
        cluster = self._referred(contexts[name], "cluster")
        user = self._referred(contexts[name], "user")
        self._check_cluster(cluster)
        self._check_user(user)
        return name, cluster, _absolute(user)

    def document(self, name: str, cluster: Entry, user: Mapping[str, Any]) -> dict[str, Any]:
        """Return a kubeconfig of one context, whose paths do not depend on where a file lies.

        Args:
            name: the context's.
            cluster: its cluster.
            user: its user's entries, with such paths already.
        """
        return {
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": _absolute(cluster).value}],
            "users": [{"name": name, "user": dict(user)}],
        }

    def impersonation(self, user: Entry) -> dict[str, str]:
        """Return the headers for acting as somebody else, which a user's entry may ask for.

        Raises:
            ConfigurationError: it asks for more than can be said: several groups, or further attributes.
        """
        groups = user.value.get("as-groups") or []
        if len(groups) > 1 or user.value.get("as-user-extra"):
            raise ConfigurationError(
                f"{self._subject}: user {user.name!r} acts as somebody else with several as-groups or with "
                "as-user-extra, which is not supported: leave all but 'as', 'as-uid' and one group out"
            )
        given = {
            "Impersonate-User": user.value.get("as"),
            "Impersonate-Uid": user.value.get("as-uid"),
            "Impersonate-Group": groups[0] if groups else None,
        }
        return {name: str(value) for name, value in given.items() if value}

    def _referred(self, context: Entry, what: str) -> Entry:
        name = str(context.value.get(what) or "")
        if not name:
            raise ConfigurationError(f"{self._subject}: context {context.name!r} names no {what}: add one")
        entry = self._sections[f"{what}s"].get(name)
        if entry is None:
            raise ConfigurationError(
                f"{self._subject}: context {context.name!r} names {what} {name!r}, which is not in it: add that {what}"
            )
        return entry

    def _check_cluster(self, cluster: Entry) -> None:
        server = str(cluster.value.get("server") or "")
        if not server.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"{self._subject}: cluster {cluster.name!r} has server {server!r}: write it as https://host:port"
            )
        self._check_file(cluster, "cluster", "certificate-authority")

    def _check_user(self, user: Entry) -> None:
        for key in ("client-certificate", "client-key"):
            self._check_file(user, "user", key)
        self._check_file(user, "user", "tokenFile", data=False)

    def _check_file(self, entry: Entry, what: str, key: str, *, data: bool = True) -> None:
        """Check that a file, or the base64 text that may stand in its place, can be read."""
        subject = f"{self._subject}: {key} of {what} {entry.name!r}"
        if data and entry.value.get(f"{key}-data"):
            try:
                base64.b64decode(str(entry.value[f"{key}-data"]), validate=True)
            except binascii.Error:
                raise ConfigurationError(f"{subject} ({key}-data) is no base64: copy it anew") from None
        elif entry.value.get(key):
            path = entry.folder / Path(str(entry.value[key])).expanduser()
            try:
                path.read_bytes()
            except OSError as error:
                raise ConfigurationError(f"{subject} cannot be read: {path}: {error.strerror}") from None


def _absolute(entry: Entry) -> Entry:
    """Return an entry with absolute paths; a token file counts more than a token, as in client-go."""
    value = dict(entry.value)
    for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
        if value.get(key):
            value[key] = str((entry.folder / Path(str(value[key])).expanduser()).absolute())
    if value.get("tokenFile"):
        value.pop("token", None)
    return Entry(entry.name, value, entry.folder)


def _load(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"kubeconfig {path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        # The text of the error may quote the line, and with it a token.
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise ConfigurationError(f"kubeconfig {path} is no YAML: look at {where}") from None
    if not isinstance(document, Mapping):
        raise ConfigurationError(f"kubeconfig {path} is no kubeconfig: it holds no clusters, contexts and users")
    return document


def _items(path: Path, section: str, items: Any) -> Sequence[Mapping[str, Any]]:
    items = items or []
    if not isinstance(items, list) or not all(isinstance(item, Mapping) and item.get("name") for item in items):
        raise ConfigurationError(f"kubeconfig {path} is no kubeconfig: {section} must be a list of entries with names")
    return items
