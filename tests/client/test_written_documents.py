"""Documents that count as stored: compared with a server that fills in defaults everywhere."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.client.memory import WrittenDocuments
from reconciler.meta import equal
from tests.depth import examples

KEYS = st.sampled_from(["a", "b", "c", "default"])
VALUES = st.recursive(
    st.integers(0, 2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
SPECS = st.dictionaries(KEYS, VALUES, max_size=4)


def completed(value: Any) -> Any:
    """Do what an API server does: give each object what it lacks, in lists too."""
    if isinstance(value, list):
        return [completed(item) for item in value]
    if isinstance(value, dict):
        return {"default": 7, **{key: completed(item) for key, item in value.items()}}
    return value


def document(spec: Any, version: str = "") -> dict[str, Any]:
    return {"kind": "Thing", "metadata": {"name": "t", "resourceVersion": version}, "spec": spec}


def mixed(rng: random.Random, left: Any, right: Any, other: Any) -> Any:
    """Take parts of one document, parts of another one, and sometimes something else."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted(left.keys() | right.keys())
        taken = {key: mixed(rng, left.get(key), right.get(key), other) for key in keys}
        return {key: value for key, value in taken.items() if value is not None and rng.random() < 0.9}
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        items = [mixed(rng, one, two, other) for one, two in zip(left, right, strict=True)]
        return [*items, other] if rng.random() < 0.1 else items[: len(items) - (rng.random() < 0.1)]
    return other if rng.random() < 0.1 else rng.choice([left, right])


@settings(max_examples=examples(300))
@given(SPECS, VALUES, st.randoms(use_true_random=False))
def test_a_document_that_counts_as_stored_would_change_nothing(sent: Any, other: Any, rng: random.Random) -> None:
    stored = completed(sent)
    written = WrittenDocuments()
    written.record("t", document(sent, "1"), document(stored, "2"))
    wanted = mixed(rng, sent, stored, other)
    if written.is_stored("t", document(stored, "2"), document(wanted, "2")):
        assert equal(completed(wanted), stored)


@given(SPECS)
def test_sent_and_stored_documents_count_as_stored(sent: Any) -> None:
    stored = completed(sent)
    written = WrittenDocuments()
    written.record("t", document(sent, "1"), document(stored, "2"))
    for wanted in (sent, stored, {**stored, **sent}):
        assert written.is_stored("t", document(stored, "2"), document(wanted, "2"))


@given(SPECS)
def test_at_another_version_only_the_stored_document_counts_as_stored(sent: Any) -> None:
    stored = completed(sent)
    written = WrittenDocuments()
    written.record("t", document(sent, "1"), document(stored, "2"))
    assert written.is_stored("t", document(stored, "3"), document(stored, "3"))
    assert written.is_stored("t", document(stored, "3"), document(sent, "3")) is equal(sent, stored)
