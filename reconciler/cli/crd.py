"""CustomResourceDefinitions: those of an operator's own kinds, and the command ``reconciler crd``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeGuard

import yaml

from reconciler._core.wire import JSONObject, quote_kubernetes_scalars
from reconciler.cli.output import print_json
from reconciler.cli.targets import load_resource
from reconciler.errors import ConfigurationError
from reconciler.manager import Manager
from reconciler.objects import AnyResource, Resource, compare_crds, generate_crd
from reconciler.objects.compatibility import CRDChange
from reconciler.webhook import Converter

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_API_VERSION = "apiextensions.k8s.io/v1"
_KIND = "CustomResourceDefinition"
_NESTING = 200
"""Maximum levels of a YAML document; a structural schema of a real kind has about forty."""


def crd(
    target: str,
    /,
    *versions: str,
    check: Path | None = None,
    output: Literal["yaml", "json"] | None = None,
) -> int:
    """Print the CustomResourceDefinition of a Resource class. Needs no cluster.

    Classes of the same group and kind are versions of one definition. With --check OLD.yaml nothing is printed but the
    changes from that file, each with its path and whether it is breaking or harmless: breaking is what refuses, prunes
    or changes the meaning of an existing object, or lets a request fail. To check against a cluster, write the file
    with 'kubectl get crd NAME -o yaml'; then versions that are still stored are checked, too.

    Args:
        target: MODULE:CLASS of a Resource, 'notification', or a YAML file of CRDs.
        versions: MODULE:CLASS of each further version, or of another kind.
        check: Instead of printing, compare with the definitions in this YAML file; exit 1 if one is broken.
        output: Output format. Default: yaml; with --check text.
    """
    targets = [target, *versions]
    if check is not None:
        return _check(targets, check, as_json=output == "json")
    documents = _generated(targets)
    if output == "json":
        print_json(documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents})
    else:
        sys.stdout.write(dump_yaml(documents))
    return 0


def _check(targets: Sequence[str], old: Path, *, as_json: bool) -> int:
    """Print the changes from the definitions in a file; return 1 if one of them is breaking.

    Raises:
        ConfigurationError: a file cannot be read, or does not contain a definition to compare with.
    """
    found = list(_changes(_generated(targets), _read(old), old, whole=all(map(_is_file, targets))))
    breaking = sum(change.breaking for _, change in found)
    if as_json:
        changes = [
            {
                "crd": name,
                "path": change.path,
                "change": change.what,
                "breaking": change.breaking,
                "reason": change.why or None,
            }
            for name, change in found
        ]
        print_json({"breaking": breaking > 0, "changes": changes})
    else:
        for name, change in found:
            verdict = "breaking" if change.breaking else "harmless"
            print(f"{verdict}  {name}: {change.path}: {change.what}{f' ({change.why})' if change.why else ''}")
        print(f"{breaking} breaking and {len(found) - breaking} harmless changes since {old}")
    return 1 if breaking else 0


def definitions_of(
    classes: Iterable[type[AnyResource]], conversions: Mapping[tuple[str, str], JSONObject] | None = None
) -> list[JSONObject]:
    """Return one definition per kind; classes of the same group and kind are its versions.

    Args:
        classes: the classes.
        conversions: ``spec.conversion`` by group and kind. Default: none.
    """
    kinds: dict[tuple[str, str], list[type[AnyResource]]] = {}
    for cls in classes:
        kinds.setdefault((cls.gvk.group, cls.gvk.kind), []).append(cls)
    return [generate_crd(*versions, conversion=(conversions or {}).get(kind)) for kind, versions in kinds.items()]


def own_definitions(
    manager: Manager, target: str, conversions: Mapping[tuple[str, str], JSONObject] | None = None
) -> list[JSONObject]:
    """Return the definitions of an operator's own kinds, each with all its versions.

    These are the Resource classes of the target's package, or of its module if it is in none, whose API group is that
    of a controller's kind.

    Args:
        manager: the manager with the controllers.
        target: the target of ``reconciler run``.
        conversions: ``spec.conversion`` by group and kind. Default: none.

    Raises:
        ConfigurationError: a converter of one of these kinds has other versions than its classes.
    """
    package = target.partition(":")[0].partition(".")[0]
    groups = {controller.kind.group for controller in manager.controllers}
    classes = {cls for cls in _subclasses(Resource) if cls.__module__.partition(".")[0] == package}
    own = [cls for cls in classes if cls.gvk.group in groups and _is_current(cls)]
    for webhook in manager.webhooks:
        if isinstance(webhook, Converter):
            _check_versions(
                webhook, [cls for cls in own if (cls.gvk.group, cls.gvk.kind) == (webhook.group, webhook.kind)]
            )
    own.sort(key=lambda cls: (cls.gvk.kind, not cls.definition.storage, cls.gvk.version))
    return definitions_of(own, conversions)


def _check_versions(converter: Converter, classes: Sequence[type[AnyResource]]) -> None:
    """Refuse a definition without a version whose class was not imported: its objects could not be read anymore."""
    by_version = {cls.gvk.version: cls for cls in classes}
    for version in converter.versions if classes else ():
        if version not in by_version:
            raise ConfigurationError(
                f"the converter of {converter.kind} converts {version}, but no class has this version: import its "
                "module where the operator is defined, or remove the conversion"
            )
    for version in by_version.keys() - set(converter.versions):
        raise ConfigurationError(
            f"the converter of {converter.kind} does not convert {version}, the version of the class "
            f"{by_version[version].__name__}: add it with Converter.add"
        )


def _subclasses(cls: type[Any]) -> Iterator[type[AnyResource]]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def _is_current(cls: type[AnyResource]) -> bool:
    """Return whether a class is still what its module contains, which may have been imported again."""
    return getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls


def dump_yaml(documents: Sequence[JSONObject]) -> str:
    """Return documents as YAML."""
    text: str = yaml.dump_all(documents, None, _Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that repeats equal parts instead of using aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the base class calls it
        return True


quote_kubernetes_scalars(_Dumper)


def _is_file(target: str) -> bool:
    return ":" not in target and Path(target).suffix in _SUFFIXES


def _generated(targets: Sequence[str]) -> list[JSONObject]:
    files = [document for target in targets if _is_file(target) for document in _read(Path(target))]
    return [*files, *definitions_of(load_resource(target) for target in targets if not _is_file(target))]


def _changes(
    new: Sequence[JSONObject], known: Sequence[JSONObject], file: Path, *, whole: bool
) -> Iterator[tuple[str, CRDChange]]:
    """Yield the name and each change of every definition.

    Args:
        new: the new definitions.
        known: the earlier ones.
        file: where those are from, for messages.
        whole: whether `new` should have all of them, so that others were removed.

    Raises:
        ConfigurationError: the only new definition is not among several earlier ones.
    """
    compared = []
    for document in new:
        old = _counterpart(document, known, only=len(new) == len(known) == 1)
        if old is not None:
            compared.append(old)
            yield from ((_name(document), change) for change in compare_crds(old, document))
        elif whole or len(new) > 1:
            yield _name(document), CRDChange("kind", "added")
        else:
            names = ", ".join(map(_name, known))
            raise ConfigurationError(f"{file} does not contain a definition of {_name(document)}: it has {names}")
    for old in known if whole else ():
        if old not in compared:
            yield _name(old), CRDChange("kind", "removed", "its objects are deleted with it")


def _counterpart(document: JSONObject, known: Sequence[JSONObject], *, only: bool) -> JSONObject | None:
    """Return the earlier definition with the name or the kind of one, or the only one; None if there is none."""
    kind = document["spec"]["names"].get("kind")
    same = [each for each in known if _name(each) == _name(document)]
    same += [each for each in known if each["spec"]["names"].get("kind") == kind]
    return next(iter([*same, *(known if only else ())]), None)


def _read(file: Path) -> list[JSONObject]:
    """Return the definitions in a YAML or JSON file; other objects in it are ignored.

    Raises:
        ConfigurationError: the file cannot be read, or contains no definition.
    """
    try:
        text = file.read_text(encoding="utf-8")
        _check_size(text)
        documents = list(yaml.load_all(text, Loader=_Loader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
        raise ConfigurationError(f"cannot read the definitions in {file}: {reason}") from error
    found = [each for document in documents for each in _items(document) if _is_definition(each)]
    if not found:
        raise ConfigurationError(f"{file} does not contain a {_KIND} of {_API_VERSION}")
    return found


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _check_size(text: str) -> None:
    """Check a document before it is built: an alias can stand for a billion values.

    Raises:
        ValueError: it has an alias, or too many levels.
    """
    level = 0
    for event in yaml.parse(text, Loader=_Loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        alias = isinstance(event, yaml.AliasEvent)
        if alias or level > _NESTING:
            line = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
            raise ValueError(line + ("aliases are not supported" if alias else f"more than {_NESTING} levels"))


def _items(document: object) -> list[object]:
    if isinstance(document, Mapping) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        return list(document["items"])
    return [document]


def _is_definition(document: object) -> TypeGuard[JSONObject]:
    """Return whether a document is a CustomResourceDefinition with the members that every one has."""
    if not isinstance(document, Mapping) or document.get("kind") != _KIND:
        return False
    spec = document.get("spec")
    return (
        document.get("apiVersion") == _API_VERSION
        and isinstance(document.get("metadata"), Mapping)
        and isinstance(spec, Mapping)
        and isinstance(spec.get("names"), Mapping)
        and isinstance(spec.get("versions"), list)
    )


def _name(document: Mapping[str, Any]) -> str:
    return str(document["metadata"].get("name"))
