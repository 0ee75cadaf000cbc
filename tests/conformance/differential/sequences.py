"""Draw sequences of steps: few kinds, few names and few managers, so that the steps meet."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.conformance.differential.kinds import KINDS, WIDGET
from tests.conformance.differential.patches import apply, json_patch, merge_patch, strategic_patch
from tests.conformance.differential.reads import get, list_, watch
from tests.conformance.differential.steps import Step
from tests.conformance.differential.writes import create, delete, delete_collection, odd, put


@st.composite
def sequences(draw: st.DrawFn) -> list[Step]:
    """Draw a sequence."""
    kinds = draw(st.lists(st.sampled_from((WIDGET, WIDGET, *KINDS)), min_size=1, max_size=2))
    steps = [draw(create(kinds[0], 0))]
    for number in range(1, draw(st.integers(3, 14)) + 1):
        kind = draw(st.sampled_from(kinds))
        steps.append(draw(draw(st.sampled_from(_STEPS))(kind, number)))
    return steps


_STEPS = (
    create,
    create,
    put,
    put,
    merge_patch,
    merge_patch,
    merge_patch,
    json_patch,
    strategic_patch,
    apply,
    apply,
    apply,
    delete,
    delete,
    delete_collection,
    list_,
    list_,
    get,
    watch,
    watch,
    odd,
)
