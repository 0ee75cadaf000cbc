"""Kubeconfig files as typed structs: an invalid value is an error with file and field."""

from __future__ import annotations

import base64
import functools
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec

from reconciler._core.wire import use_kubernetes_scalars
from reconciler.client.pool import is_http_address, without_password
from reconciler.errors import ConfigurationError

if TYPE_CHECKING:
    import yaml


_LARGEST_FILE = 2**24

_MOST_VALUES = 1_000_000
"""Values of a file, each counted as often as YAML's aliases repeat it: in a few lines they fill the memory."""


class Secretive(msgspec.Struct, frozen=True):
    """A part of a kubeconfig; its ``repr`` shows no value, since it may contain a token or a key."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class KubeconfigCluster(Secretive, frozen=True, rename="kebab"):
    """A cluster; None means that a field is absent."""

    server: str | None = None
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    proxy_url: str | None = None
    disable_compression: bool | None = None


class KubeconfigContext(Secretive, frozen=True):
    """A cluster and a user, by name, and a namespace."""

    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None


class ExecVariable(Secretive, frozen=True):
    """A variable in a plugin's environment."""

    name: str | None = None
    value: str | None = None


class ExecPlugin(Secretive, frozen=True, rename="camel"):
    """A program that prints credentials."""

    api_version: str | None = None
    command: str | None = None
    args: list[str] | None = None
    env: list[ExecVariable] | None = None
    install_hint: str | None = None
    interactive_mode: str | None = None
    provide_cluster_info: bool | None = None


class AuthProvider(Secretive, frozen=True):
    """What early versions of Kubernetes had in place of plugins."""

    name: str | None = None


_USER_FIELDS = {"token_file": "tokenFile", "as_user": "as", "plugin": "exec"}


class KubeconfigUser(Secretive, frozen=True, rename=lambda name: _USER_FIELDS.get(name, name.replace("_", "-"))):
    """Credentials; None means that a field is absent."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = None
    username: str | None = None
    password: str | None = None
    as_user: str | None = None
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None
    auth_provider: AuthProvider | None = None
    plugin: ExecPlugin | None = None


class _Named(Secretive, frozen=True):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    cluster: KubeconfigCluster | None = None
    context: KubeconfigContext | None = None
    user: KubeconfigUser | None = None


class _File(Secretive, frozen=True, rename="kebab"):
    current_context: str | None = None
    clusters: list[_Named] | None = None
    contexts: list[_Named] | None = None
    users: list[_Named] | None = None


def default_path() -> Path:
    """Return ``~/.kube/config``."""
    return Path("~/.kube/config").expanduser()


def paths_in(variable: str) -> list[Path]:
    """Return the paths in a value of ``KUBECONFIG``."""
    return [Path(part).expanduser() for part in variable.split(os.pathsep) if part]


_EMPTY: Mapping[str, Any] = {
    "clusters": KubeconfigCluster(),
    "contexts": KubeconfigContext(),
    "users": KubeconfigUser(),
}

T = TypeVar("T", KubeconfigCluster, KubeconfigContext, KubeconfigUser)


@dataclass(frozen=True, slots=True)
class KubeconfigEntry(Generic[T]):
    """A cluster, context or user, and the file that it was read from. Relative paths start from the file's folder."""

    name: str
    value: T
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
        self._sections: dict[str, dict[str, KubeconfigEntry[Any]]] = {section: {} for section in _EMPTY}
        self._current = ""
        found = [(path, file) for path in paths if (file := _load(path)) is not None]
        if not found:
            raise ConfigurationError(f"{subject} does not exist: pass the path of a kubeconfig, or unset it")
        for path, file in found:
            self._current = self._current or file.current_context or ""
            for section, entries in self._sections.items():
                names: set[str] = set()
                for each in getattr(file, section) or ():
                    if each.name in names:
                        raise ConfigurationError(
                            f"kubeconfig {path}: there are two {section} named {each.name!r}: remove one"
                        )
                    names.add(each.name)
                    value = getattr(each, section.removesuffix("s")) or _EMPTY[section]
                    entries.setdefault(each.name, KubeconfigEntry(each.name, value, path))

    def choose(self, context: str | None) -> tuple[KubeconfigEntry[KubeconfigCluster], KubeconfigEntry[KubeconfigUser]]:
        """Choose the cluster and the user of a context, by default the current one. Their paths are absolute.

        Raises:
            ConfigurationError: the context, its cluster or its user does not exist, or a field is invalid.
        """
        chosen = self._chosen(context)
        cluster, user = self._referred(chosen, "cluster"), self._referred(chosen, "user")
        address = f"kubeconfig {cluster.path}: cluster {cluster.name!r} has"
        _check_address(f"{address} server", cluster.value.server or "", "https://host:port")
        if cluster.value.proxy_url:
            _check_address(f"{address} proxy-url", cluster.value.proxy_url, "http://host:port")
        _check_user(user)
        return _with_paths(cluster, "cluster", "certificate_authority"), _with_paths(
            user, "user", "client_certificate", "client_key", "token_file"
        )

    def namespace(self, context: str | None) -> str:
        """Return the namespace of a context, by default the current one; ``""`` if it has none.

        Raises:
            ConfigurationError: the context does not exist, or a field is invalid.
        """
        return self._chosen(context).value.namespace or ""

    def impersonation(self, user: KubeconfigEntry[KubeconfigUser]) -> dict[str, str]:
        """Return the headers for the impersonation in a user's entry, if any.

        Raises:
            ConfigurationError: the entry has several groups or extra attributes, which are not supported.
        """
        groups = user.value.as_groups or []
        if len(groups) > 1 or user.value.as_user_extra:
            raise ConfigurationError(
                f"{self._subject}: user {user.name!r} impersonates with several as-groups or with as-user-extra, which "
                "is not supported: use only 'as', 'as-uid' and one group"
            )
        given = {
            "Impersonate-User": user.value.as_user,
            "Impersonate-Uid": user.value.as_uid,
            "Impersonate-Group": groups[0] if groups else None,
        }
        return {name: value for name, value in given.items() if value}

    def _chosen(self, context: str | None) -> KubeconfigEntry[KubeconfigContext]:
        contexts = self._sections["contexts"]
        known = f"its contexts are {', '.join(sorted(contexts)) or 'none'}"
        name = context or self._current
        if not name:
            raise ConfigurationError(f"{self._subject} has no current-context: choose a context, {known}")
        if name not in contexts:
            raise ConfigurationError(f"{self._subject} has no context {name!r}: {known}")
        return contexts[name]

    def _referred(self, context: KubeconfigEntry[KubeconfigContext], what: str) -> KubeconfigEntry[Any]:
        name = getattr(context.value, what)
        if not name:
            raise ConfigurationError(f"{self._subject}: context {context.name!r} has no {what}: add one")
        if name not in self._sections[f"{what}s"]:
            raise ConfigurationError(
                f"{self._subject}: context {context.name!r} names {what} {name!r}, which does not exist: add it"
            )
        return self._sections[f"{what}s"][name]


def _check_address(subject: str, address: str, form: str) -> None:
    if not is_http_address(address) or not address.isprintable() or " " in address:
        raise ConfigurationError(f"{subject} {without_password(address)!r}: write it as {form}")


def _check_user(user: KubeconfigEntry[KubeconfigUser]) -> None:
    subject = f"kubeconfig {user.path}: user {user.name!r}"
    for text in (user.value.as_user or "", user.value.as_uid or "", *(user.value.as_groups or ())):
        if not text.isprintable():
            raise ConfigurationError(f"{subject}: the name to impersonate contains a control character")
    variables = (user.value.plugin.env if user.value.plugin else None) or []
    for number, variable in enumerate(variables):
        name = variable.name or ""
        if not name or "=" in name or "\0" in name + (variable.value or ""):
            raise ConfigurationError(
                f"{subject}: exec: env[{number}] is not a variable: it needs a name, and a value without NUL"
            )


def _with_paths(entry: KubeconfigEntry[T], what: str, *fields: str) -> KubeconfigEntry[T]:
    """Return an entry with absolute paths, after checking that these files, or the data in their place, can be read."""
    absolute: dict[str, str] = {}
    for name in fields:
        path, data = getattr(entry.value, name), getattr(entry.value, f"{name}_data", None)
        key = "tokenFile" if name == "token_file" else name.replace("_", "-")
        subject = f"kubeconfig {entry.path}: {key} of {what} {entry.name!r}"
        try:
            if data:
                base64.b64decode("".join(data.split()), validate=True)
            elif path:
                file = (entry.folder / Path(path).expanduser()).absolute()
                file.read_bytes()
                absolute[name] = str(file)
        except OSError as error:
            raise ConfigurationError(f"{subject} cannot be read: {error.filename}: {error.strerror}") from None
        except ValueError:
            why = f"({key}-data) is not valid base64: copy it again" if data else "is not a valid path"
            raise ConfigurationError(f"{subject} {why}") from None
    return replace(entry, value=msgspec.structs.replace(entry.value, **absolute))


def _load(path: Path) -> _File | None:
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
    if any(True for _ in itertools.islice(_values(document), _MOST_VALUES, None)):
        raise ConfigurationError(f"kubeconfig {path} has more than {_MOST_VALUES} values: remove aliases from it")
    try:
        return msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"kubeconfig {path}: {_problem(str(error), document)}") from None


def _values(document: object) -> Iterator[object]:
    waiting = [document]
    while waiting:
        value = waiting.pop()
        yield value
        waiting.extend(value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ())


_WRONG_TYPE = re.compile(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`")
_ENTRY = re.compile(r"(cluster|context|user)s\[(\d+)\]: \1")
_TYPES = {
    "str": "text",
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "array": "a list",
    "object": "a mapping",
}
_HINTS = {
    ("text", "a number"): ": put it in quotes",
    ("text", "true or false"): ": put it in quotes",
    ("true or false", "text"): ": write it without quotes",
}


def _problem(text: str, document: Mapping[str, Any]) -> str:
    """Return msgspec's error in the words of YAML. It does not show the value, which may be secret."""
    what, _, place = text.partition(" - at `")
    of_key = place.startswith("key` in `")
    place = place.removeprefix("key` in `").strip("$`").removeprefix(".")
    where = place.replace("[...]", "[*]").replace(".", ": ")
    entry = _ENTRY.match(where)
    name = None if entry is None else document[f"{entry[1]}s"][int(entry[2])].get("name")
    if entry is not None and name:
        where = f"{entry[1]} {name!r:.80}{where[entry.end() :]}"
    if of_key:
        return f"{where or 'the file'} has a key that is not text: put it in quotes"
    found = _WRONG_TYPE.fullmatch(what)
    if found is None:
        return f"{where}: {what[:1].lower()}{what[1:]}"
    wanted, given = (_TYPES.get(name, name) for name in found.groups())
    return f"{where} must be {wanted}, not {given}{_HINTS.get((wanted, given), '')}"


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
