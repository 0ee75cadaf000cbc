"""The difference of two states: names, uids, versions and times are matched up, and the rest is compared."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.testing.differences import compare_states


def document(name: str = "a", kind: str = "ConfigMap", uid: str = "u1", version: str = "7", **rest: Any) -> Any:
    metadata = {"name": name, "namespace": "default", "uid": uid, "resourceVersion": version} | rest.pop("metadata", {})
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest}


def lines(before: list[Any], after: list[Any]) -> list[str]:
    return [str(each) for each in compare_states(before, after)]


def test_states_that_mean_the_same_do_not_differ() -> None:
    before = [
        document(uid="u1", metadata={"creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3}),
        document("b", metadata={"ownerReferences": [{"kind": "ConfigMap", "name": "a", "uid": "u1"}]}, seen="7"),
    ]
    after = [
        document("b", metadata={"ownerReferences": [{"kind": "ConfigMap", "name": "a", "uid": "u9"}]}, seen="9"),
        document(uid="u9", version="9", metadata={"creationTimestamp": "2026-01-01T00:05:00Z", "generation": 4}),
    ]
    assert lines(before, after) == []


def test_generated_names_are_matched_up_also_where_others_name_them() -> None:
    before = [document("web-x7k2p", data={"at": "web-x7k2p.default"}), document("index", data={"pod": "web-x7k2p"})]
    after = [document("web-b4c9d", data={"at": "web-b4c9d.default"}), document("index", data={"pod": "web-b4c9d"})]
    assert lines(before, after) == []
    after[1]["data"]["pod"] = "web-zzzz1"
    assert lines(before, after) == ['~ ConfigMap default/index\n    /data/pod: "web-x7k2p" → "web-zzzz1"']


def test_names_that_people_chose_are_not_matched_up() -> None:
    assert lines([document("site-blog")], [document("site-shop")]) == [
        "- ConfigMap default/site-blog",
        "+ ConfigMap default/site-shop",
    ]


def test_objects_and_fields_that_differ_are_listed() -> None:
    before = [document("a", data={"x": "1"}), document("gone")]
    after = [document("a", data={"x": "2", "y": "3"}), document("new")]
    assert lines(before, after) == [
        '~ ConfigMap default/a\n    /data/x: "1" → "2"\n    /data/y: nothing → "3"',
        "- ConfigMap default/gone",
        "+ ConfigMap default/new",
    ]


def test_a_secret_is_compared_and_not_shown() -> None:
    before, after = document(kind="Secret", data={"p": "b25l"}), document(kind="Secret", data={"p": "dHdv"})
    assert lines([before], [after]) == ["~ Secret default/a\n    /data/p: another value (hidden)"]
    before, after = document(spec={"password": "one"}), document(spec={"password": "two"})
    assert lines([before], [after]) == ["~ ConfigMap default/a\n    /spec/password: another value (hidden)"]


@pytest.mark.parametrize(("first", "second", "differs"), [(4, 5, False), (4, 6, True)], ids=["current", "behind"])
def test_an_observed_generation_is_compared_with_its_own_object(first: int, second: int, *, differs: bool) -> None:
    before = document(metadata={"generation": 4}, status={"observedGeneration": first})
    after = document(metadata={"generation": 5}, status={"observedGeneration": second})
    assert bool(lines([before], [after])) is differs


def test_a_time_that_is_missing_differs_and_another_time_does_not() -> None:
    before = document(status={"at": "2026-01-01T00:00:00Z", "text": "since 2026-01-01T00:00:00Z"})
    after = document(status={"at": "2026-02-01T00:00:01Z", "text": "since 2026-03-01T00:00:00Z"})
    assert lines([before], [after]) == []
    assert len(lines([before], [document(status={"text": "since 2026-03-01T00:00:00Z"})])) == 1


def test_a_field_that_varies_must_still_be_there() -> None:
    before, after = document(data={"p": "1"}), document(data={"p": "2"})
    assert compare_states([before], [after], varies=lambda _key, path: path == "/data/p") == []
    assert compare_states([before], [document(data={})], varies=lambda _key, path: path == "/data/p") != []
