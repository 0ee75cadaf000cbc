"""CustomResourceDefinitions: those of an operator's own kinds, and the command ``reconciler crd``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import yaml

from reconciler._core.wire import JSONObject, quote_kubernetes_scalars
from reconciler.cli.output import print_json
from reconciler.cli.targets import load_resource
from reconciler.errors import ConfigurationError
from reconciler.manager import Manager
from reconciler.objects import AnyResource, Resource, generate_crd
from reconciler.webhook import Converter


def crd(
    target: str,
    /,
    *versions: str,
    output: Literal["yaml", "json"] = "yaml",
) -> int:
    """Print the CustomResourceDefinition of a Resource class. Needs no cluster.

    Classes of the same group and kind are versions of one definition.

    Args:
        target: MODULE:CLASS of a Resource, or 'notification'.
        versions: MODULE:CLASS of each further version, or of another kind.
    """
    documents = definitions_of(load_resource(each) for each in (target, *versions))
    if output == "json":
        print_json(documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents})
    else:
        sys.stdout.write(dump_yaml(documents))
    return 0


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
