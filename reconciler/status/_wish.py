"""Compute what a status should become on one version, and the body that asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.meta import equal, get_path, merge_diff, set_path
from reconciler.status._apply import applied_configuration
from reconciler.status._effects import Policy, Target
from reconciler.status._memory import MEMORY
from reconciler.status._mutations import Context, Mutation, leaves
from reconciler.status._snapshot import Snapshot

__all__ = ["Wish", "wish_for"]


@dataclass(frozen=True, slots=True)
class Wish:
    """Be the status asked for on one version.

    Attributes:
        tip: the version.
        mutations: what was applied to it.
        computed: the whole status then, without what the server is known not to store.
        diff: the merge patch from the one to the other; empty when nothing is to be written.
        body: what to send.
        trimmed: list entries that ``keep_last`` dropped.
    """

    tip: Snapshot
    mutations: Sequence[Mutation]
    computed: dict[str, Any]
    diff: dict[str, Any]
    body: dict[str, Any]
    trimmed: int

    def is_shown_by(self, status: Mapping[str, Any]) -> bool:
        """Say whether a status has the computed value in every path that is to be written."""
        return all(equal(get_path(status, path), get_path(self.computed, path)) for path, _ in leaves(self.diff))

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
) -> Wish:
    """Make the wish for a computed status, which is taken over.

    Args:
        target: the object.
        policy: how it is sent.
        tip: the version that it is conditional on.
        mutations: what was applied.
        computed: the result.
        context: what applying them did besides.
        mark: the id to leave at the policy's token path, if it has one and there is something to write.
    """
    MEMORY.leave_out(target.kind, computed, tip.status, policy.clock)
    diff = merge_diff(tip.status, computed)
    if diff and policy.token is not None:
        set_path(computed, policy.token, mark)
        diff = merge_diff(tip.status, computed)
    if policy.strategy == "apply" and diff:
        body = applied_configuration(target.gvk, target.request, target.field_manager, tip=tip, computed=computed)
    else:
        body = {"metadata": {"resourceVersion": tip.version}, "status": diff}
    return Wish(tip, mutations, computed, diff, body, context.trimmed)
