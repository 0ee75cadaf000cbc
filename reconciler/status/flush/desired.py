"""Compute what a status should become on one version, and the body that asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from reconciler.meta import equal, get_path, keep_transition_times, merge_diff, merge_patch, set_path
from reconciler.status.flush.apply import adopted, applied_configuration
from reconciler.status.flush.effects import Policy, Target
from reconciler.status.record.mutations import Context, Mutation, Path, leaves
from reconciler.status.record.snapshot import Snapshot
from reconciler.status.writer import Strategy

__all__ = ["Wish", "adoption_of", "wish_for"]


class Wish(msgspec.Struct, frozen=True):
    """Be the status asked for on one version.

    Attributes:
        tip: the version.
        mutations: what was applied to it.
        computed: the whole status then.
        diff: the merge patch from the one to the other; empty when nothing is to be written.
        body: what to send.
        trimmed: list entries that ``keep_last`` dropped.
        strategy: how to send it.
        to_main: whether to send it to the main resource in any case.
    """

    tip: Snapshot
    mutations: Sequence[Mutation]
    computed: dict[str, Any]
    diff: dict[str, Any]
    body: dict[str, Any]
    trimmed: int
    strategy: Strategy
    to_main: bool = False

    @property
    def fields(self) -> Sequence[Path]:
        """Return the paths that are to be written."""
        return [path for path, _ in leaves(self.diff)]

    def missing_in(self, status: Mapping[str, Any]) -> Sequence[Path]:
        """Return the paths that are to be written where a status does not have the computed value."""
        return [path for path in self.fields if not equal(get_path(status, path), get_path(self.computed, path))]

    def left_no_trace_in(self, status: Mapping[str, Any]) -> bool:
        """Say whether a status is still the old one, although there was something to write."""
        return bool(self.diff) and equal(status, self.tip.status)


def wish_for(
    target: Target,
    policy: Policy,
    *,
    tip: Snapshot,
    mutations: Sequence[Mutation],
    computed: dict[str, Any],
    context: Context,
    mark: str,
    conditional: bool = True,
) -> Wish:
    """Make the wish for a computed status, which is taken over.

    Args:
        target: the object.
        policy: how it is sent.
        tip: the version that it is conditional on.
        mutations: what was applied.
        computed: the result.
        context: what applying them did besides.
        conditional: whether the body names the version.
        mark: the id to leave at the policy's token path, if it has one and there is something to write.
    """
    keep_transition_times(tip.status, computed)
    diff = merge_diff(tip.status, computed)
    if diff and policy.forms is not None:
        kept = policy.forms.keep(tip.status, computed)
        if kept is not computed:  # rarely: it costs a second diff
            computed, diff = kept, merge_diff(tip.status, kept)
    if diff and target.memory.has_answers:
        paths = [path for path, _ in leaves(diff)]
        if target.memory.foresees(tip.uid, paths, computed, tip.status, policy.clock):
            computed, diff = tip.status, {}  # it was sent before, and this is what the server makes of it
    if diff and policy.token is not None:
        set_path(computed, policy.token, mark)
        diff = merge_diff(tip.status, computed)
    if policy.strategy == "apply" and diff:
        body = applied_configuration(
            target.gvk, target.request, target.field_manager, tip=tip, computed=computed, mutations=mutations
        )
    elif policy.strategy == "update":
        # What the server makes of the patch; `computed` may say null where something is to go.
        body = {**tip.frame, "status": merge_patch(tip.status, diff)}
    else:
        body = {"metadata": {"resourceVersion": tip.version}, "status": diff} if conditional else {"status": diff}
    return Wish(tip, mutations, computed, diff, body, context.trimmed, policy.strategy)


def adoption_of(target: Target, wish: Wish) -> Wish | None:
    """Return the wish that makes earlier writes of this manager count as applied; None when there are none.

    It changes nothing but the bookkeeping, and is conditional like every other. It goes to the main resource, because a
    write of ``/status`` leaves the bookkeeping as it is (seen on kube-apiserver 1.36).
    """
    tip = wish.tip
    fields = adopted(tip.managed_fields, target.field_manager, former=target.former_field_manager, changed=wish.fields)
    if fields is None:
        return None
    body = {"metadata": {"resourceVersion": tip.version, "managedFields": fields}}
    return Wish(tip, (), tip.status, {}, body, 0, "merge", to_main=True)
