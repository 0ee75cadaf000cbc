"""Decide which recorded mutations may be repeated on a version that the caller has not seen.

Appends, increments, conditions and functions are meant for whatever version there is. A value that was *set* was
decided on the version read: on a newer one it is repeated only where nobody else changed the field since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.meta import delete_path, equal, get_path
from reconciler.status.record.json_values import copy_json
from reconciler.status.record.mutations import Merge, Mutation, Path, Remove, Set, leaves

__all__ = ["Sifted", "sift"]


class Sifted(NamedTuple):
    """Hold what came out.

    Attributes:
        kept: the mutations to apply to the newer version, in order.
        contested: those that would overwrite another writer's change.
        paths: where.
    """

    kept: list[Mutation]
    contested: list[Mutation]
    paths: list[Path]


class _Claim(NamedTuple):
    path: Path
    value: Any
    overwrite: bool | None


def sift(
    mutations: Sequence[Mutation],
    considered: Mapping[str, Any],
    fresh: Mapping[str, Any],
    *,
    owned: Callable[[Path], bool],
    reset: Callable[[Path], bool] = lambda _: False,
) -> Sifted:
    """Divide mutations into those that may be applied to a newer status and those that may not.

    A field that nobody changed, or that holds the wanted value already, is no matter. A set to the value that was there
    when it was recorded asked for nothing, so another writer's change stays. Otherwise the field is contested, unless
    the mutation overwrites, or `owned` says that the change was made under the batcher's own field manager. Generations
    are never contested: they only rise.

    Args:
        mutations: in the order of their calls.
        considered: the status that they were recorded on.
        fresh: the newer status.
        owned: whether the own field manager owns a field of the newer version.
        reset: whether another writer set a field to the value that was there before. Default: nobody did.
    """
    last = {claim.path: claim.value for mutation in mutations for claim in _claims(mutation)}
    sifted = Sifted([], [], [])
    for mutation in mutations:
        idle, contested = [], []
        for claim in _claims(mutation):
            before, now = get_path(considered, claim.path), get_path(fresh, claim.path)
            wanted = last[claim.path]
            if equal(wanted, now) or (equal(before, now) and not reset(claim.path)):
                continue
            if equal(wanted, before):
                idle.append(claim.path)
            elif not (owned(claim.path) if claim.overwrite is None else claim.overwrite):
                contested.append(claim.path)
        if contested:
            sifted.contested.append(mutation)
            sifted.paths.extend(contested)
        else:
            sifted.kept.extend(_without(mutation, idle))
    return sifted


def _claims(mutation: Mutation) -> list[_Claim]:
    if isinstance(mutation, Set):
        return [] if mutation.rises else [_Claim(mutation.path, mutation.value, mutation.overwrite)]
    if isinstance(mutation, Remove):
        return [_Claim(mutation.path, None, None)]
    if isinstance(mutation, Merge):
        return [_Claim(path, value, None) for path, value in leaves(mutation.document, mutation.path)]
    return []


def _without(mutation: Mutation, idle: Iterable[Path]) -> list[Mutation]:
    paths = list(idle)
    if not paths:
        return [mutation]
    if not isinstance(mutation, Merge):
        return []
    document = copy_json(mutation.document)
    for path in paths:
        delete_path(document, path[len(mutation.path) :])
    return [Merge(mutation.path, document)]
