"""Strategy "apply": every apply contains all that its manager owns, and keeps other managers' items and fields.

The server here is a model of server-side apply: owners per leaf and per item of a keyed list, separately for applies
and updates. Its behavior was compared with kube-apiserver 1.36 by hand.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.meta.cycle import current_cycle
from reconciler.status import StatusBatcher, StatusConflict, StatusRejected
from tests.depth import examples
from tests.status.scripted import GVK, KEY, Doc, ScriptedServer, api_error, meanwhile, refused
from tests.status.test_cycle import FakeCycle

ME = "kube-reconciler"
KEYED = {("conditions",): ("type",), ("channels",): ("name",)}

Flat = dict[tuple[str, ...], Any]


def flat(value: Any, path: tuple[str, ...] = (), real: tuple[str, ...] = ()) -> Flat:
    """The leaves by path; an item of a keyed list has its FieldsV1 path element."""
    found: Flat = {}
    if isinstance(value, dict) and value:
        for key, item in value.items():
            found |= flat(item, (*path, f"f:{key}"), (*real, key))
    elif isinstance(value, list) and real in KEYED:
        for item in value:
            named = json.dumps({k: item[k] for k in KEYED[real]}, separators=(",", ":"))
            found |= flat(item, (*path, f"k:{named}"), (*real, "*"))
    elif path:
        found[path] = value
    return found


def nested(leaves: Flat) -> Doc:
    result: Any = {}
    for path, value in leaves.items():
        _put(result, path, value)
    return result


def _put(target: Any, path: tuple[str, ...], value: Any) -> None:
    head, rest = path[0], path[1:]
    if head.startswith("k:"):
        named = json.loads(head[2:])
        item = next((i for i in target if all(i.get(k) == v for k, v in named.items())), None)
        if item is None:
            item = dict(named)
            target.append(item)
        _put(item, rest, value)
    elif not rest:
        target[head[2:]] = copy.deepcopy(value)
    else:
        _put(target.setdefault(head[2:], [] if rest[0].startswith("k:") else {}), rest, value)


@dataclass
class Owning(ScriptedServer):
    sets: dict[tuple[str, str], set[tuple[str, ...]]] = field(default_factory=dict)
    may_patch_main: bool = True

    def foreign_apply(self, status: Doc, manager: str = "other") -> None:
        self._apply(status, manager)

    def patch(self, body: Doc, strategy: str, subresource: str | None, manager: str) -> Doc:
        if strategy != "apply" and "managedFields" not in body["metadata"]:
            return super().patch(body, strategy, subresource, manager)
        self.writes.append((copy.deepcopy(body), strategy, subresource))
        return self._troubled(self.on_write, lambda: self._conditional(body, strategy, subresource, manager))

    def _conditional(self, body: Doc, strategy: str, subresource: str | None, manager: str) -> Doc:
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise api_error(409, "Conflict", "the object has been modified")
        if strategy == "apply":
            assert (body["apiVersion"], body["kind"]) == (GVK.api_version, GVK.kind)
            assert (body["metadata"]["name"], body["metadata"]["namespace"]) == KEY
            assert subresource == "status"
            self._apply(body.get("status", {}), manager)
        elif subresource is None:
            if not self.may_patch_main:
                raise api_error(403, "Forbidden", "may not patch the main resource")
            self.sets = {
                (e["manager"], e["operation"]): set(_paths(e["fieldsV1"]["f:status"]))
                for e in body["metadata"]["managedFields"]
            }
            self.version += 1
        return self.document()

    def _apply(self, status: Doc, manager: str) -> None:
        said = flat(status)
        mine = (manager, "Apply")
        others = set().union(*(owned for key, owned in self.sets.items() if key != mine))
        given_up = self.sets.get(mine, set()) - said.keys() - others
        before = {path: value for path, value in flat(self.status).items() if path not in given_up}
        for path, value in said.items():
            if before.get(path) != value:
                for owned in self.sets.values():
                    owned.discard(path)
        self.sets[mine] = set(said)
        self.status = nested(before | said)
        self.version += 1

    def _store(self, before: Doc, after: Doc, manager: str) -> None:
        self.version += 1
        old, new = flat(before), flat(after)
        for path in old.keys() | new.keys():
            if old.get(path) != new.get(path):
                for owned in self.sets.values():
                    owned.discard(path)
                if path in new:
                    self.sets.setdefault((manager, "Update"), set()).add(path)

    def _managed_fields(self) -> list[Doc]:
        entries = []
        for (manager, operation), owned in self.sets.items():
            tree: Doc = {}
            for path in owned:
                node = tree
                for key in path:
                    node = node.setdefault(key, {".": {}} if key.startswith("k:") else {})
            if owned:
                entries.append({"manager": manager, "operation": operation, "fieldsV1": {"f:status": tree}})
        return entries

    def document(self) -> Doc:
        document = super().document()
        if self.track_owners:
            document["metadata"]["managedFields"] = self._managed_fields()
        return document


def _paths(tree: Doc, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, sub in tree.items():
        if key != ".":
            found += _paths(sub, (*path, key)) if sub.keys() - {"."} else [(*path, key)]
    return found


@pytest.fixture
def owning() -> Owning:
    return Owning()


def apply(server: Owning, *calls: Any, document: Doc | None = None, **options: Any) -> StatusBatcher:
    document = document or server.document()
    with StatusBatcher(server.blocking_writer(), document, strategy="apply", **options) as status:
        for call in calls:
            call(status)
    return status


def test_an_apply_repeats_all_that_the_manager_owns(owning):
    apply(owning, lambda s: s.set(phase="A", total=1), lambda s: s.set("deep.a", 1))
    apply(owning, lambda s: s.set(phase="B"))
    assert owning.status == {"phase": "B", "total": 1, "deep": {"a": 1}}
    assert owning.writes[-1][0]["status"] == owning.status
    assert owning.writes[-1][0]["metadata"]["resourceVersion"] == "101"


def test_an_apply_omits_what_others_own(owning):
    owning.foreign_apply({"theirs": 1, "deep": {"theirs": 1}})
    apply(owning, lambda s: s.set(phase="A"), lambda s: s.set("deep.mine", 1))
    assert owning.writes[-1][0]["status"] == {"phase": "A", "deep": {"mine": 1}}
    owning.foreign_apply({})
    assert owning.status == {"phase": "A", "deep": {"mine": 1}}


def test_an_omitted_field_is_removed_if_nobody_else_owns_it(owning):
    apply(owning, lambda s: s.set(phase="A", error="x", shared=1))
    owning.foreign_apply({"shared": 1})
    apply(owning, lambda s: s.remove("error"), lambda s: s.remove("shared"))
    assert owning.status == {"phase": "A", "shared": 1}
    apply(owning, lambda s: s.remove("shared"))
    assert len(owning.writes) == 2, "a field that another manager keeps must not cause endless writes"


def test_items_of_a_keyed_list_belong_to_their_managers(owning):
    foreign = {"type": "Theirs", "status": "True", "reason": "F", "message": "", "lastTransitionTime": "x"}
    owning.foreign_apply({"conditions": [foreign], "channels": [{"name": "theirs", "n": 1}]})
    apply(
        owning,
        lambda s: s.set_condition("Ready", False, reason="A"),
        lambda s: s.upsert("channels", {"name": "mine", "n": 1}, key="name"),
    )
    apply(owning, lambda s: s.set_condition("Ready", True, reason="B"))
    said = owning.writes[-1][0]["status"]
    assert [c["type"] for c in said["conditions"]] == ["Ready"]
    assert said["channels"] == [{"name": "mine", "n": 1}]
    assert [c["type"] for c in owning.status["conditions"]] == ["Theirs", "Ready"]
    assert [c["name"] for c in owning.status["channels"]] == ["theirs", "mine"]


def test_an_own_item_can_be_removed_from_a_shared_list(owning):
    owning.foreign_apply({"channels": [{"name": "theirs", "n": 1}]})
    apply(owning, lambda s: s.upsert("channels", {"name": "mine"}, key="name"))
    apply(owning, lambda s: s.mutate(lambda d: d.update(channels=[c for c in d["channels"] if c["name"] != "mine"])))
    assert owning.status == {"channels": [{"name": "theirs", "n": 1}]}


def test_no_change_makes_no_request(owning):
    apply(owning, lambda s: s.set(phase="A"))
    status = apply(owning, lambda s: s.set(phase="A"))
    assert (status.written, len(owning.writes)) == (False, 1)


def test_counters_add_up_over_a_conflict(owning):
    apply(owning, lambda s: s.increment("total"))
    owning.on_write.append(meanwhile(lambda s: s.foreign_apply({"theirs": 1})))
    status = apply(owning, lambda s: s.increment("total"))
    assert owning.status == {"total": 2, "theirs": 1}
    assert status.statistics().conflicts == 1


def test_a_conflict_of_managers_is_not_replayed(owning):
    error = api_error(409, "Conflict", "conflict with x", causes=[{"reason": "FieldManagerConflict", "field": ".a"}])
    owning.on_write.append(refused(error))
    with pytest.raises(StatusRejected):
        apply(owning, lambda s: s.set(phase="A"), document=owning.document())
    assert len(owning.writes) == 1


def test_the_first_apply_takes_over_the_managers_earlier_patches(owning):
    with StatusBatcher(owning.blocking_writer(), owning.document()) as status:
        status.set(phase="A", error="x")
    assert owning.sets.keys() == {(ME, "Update")}
    status = apply(owning, lambda s: s.remove("error"))
    assert owning.status == {"phase": "A"}, "an update's ownership would have kept it"
    assert owning.sets[ME, "Apply"] == {("f:phase",)}
    assert [(strategy, sub) for _, strategy, sub in owning.writes[1:]] == [("merge", None), ("apply", "status")]
    assert status.statistics().attempts == 2
    apply(owning, lambda s: s.set(phase="B"))
    assert len(owning.writes) == 4, "once"


def test_the_takeover_is_part_of_the_chain_of_writes(owning):
    with StatusBatcher(owning.blocking_writer(), owning.document()) as status:
        status.set(phase="A")
    cycle = FakeCycle()
    token = current_cycle.set(cycle)
    try:
        apply(owning, lambda s: s.set(phase="B"))
    finally:
        current_cycle.reset(token)
    assert cycle.writes == [(101, 102, True), (102, 103, True)]


def test_the_error_names_the_permission_that_the_takeover_needs(owning):
    with StatusBatcher(owning.blocking_writer(), owning.document()) as status:
        status.set(phase="A")
    owning.may_patch_main = False
    with pytest.raises(StatusRejected, match="must allow to patch the main resource"):
        apply(owning, lambda s: s.set(phase="B"))


def test_an_object_without_managed_fields_is_read_first_if_something_changed(owning):
    apply(owning, lambda s: s.set(phase="A", total=1))
    stripped = owning.document()
    del stripped["metadata"]["managedFields"]
    owning.reads = 0
    apply(owning, lambda s: s.set(phase="A"), document=copy.deepcopy(stripped))
    assert owning.reads == 0
    apply(owning, lambda s: s.set(phase="B"), document=stripped)
    assert owning.reads == 1
    assert owning.status == {"phase": "B", "total": 1}


def test_the_mutations_are_replayed_if_that_read_shows_a_newer_version(owning):
    apply(owning, lambda s: s.increment("total"))
    stripped = owning.document()
    del stripped["metadata"]["managedFields"]
    owning.foreign_apply({"theirs": 1})
    apply(owning, lambda s: s.increment("total"), document=copy.deepcopy(stripped))
    assert owning.status == {"total": 2, "theirs": 1}


def test_a_checkpoint_without_managed_fields_raises_if_the_object_is_newer(owning):
    stripped = owning.document()
    stripped["metadata"].pop("managedFields", None)
    owning.foreign_apply({"theirs": 1})
    with StatusBatcher(owning.blocking_writer(), stripped, strategy="apply") as status:
        status.set(phase="A")
        with pytest.raises(StatusConflict):
            status.flush()


@pytest.mark.parametrize("call", [lambda s: s.append("log", 1), lambda s: s.append("log", {"id": 1})])
def test_appending_without_a_key_is_refused_at_the_call(owning, call):
    batcher = StatusBatcher(owning.blocking_writer(), owning.document(), strategy="apply")
    with batcher as status, pytest.raises(ValueError, match="strategy='apply' pass key="):
        call(status)
    assert owning.writes == []


def test_adding_to_a_list_that_belongs_to_one_manager_is_refused_at_the_call(owning):
    owning.foreign_apply({"log": [{"id": 1}]})
    with StatusBatcher(owning.blocking_writer(), owning.document(), strategy="apply") as status:
        with pytest.raises(ValueError, match="belongs to 'other' as a whole"):
            status.append("log", {"id": 2}, key="id")
        with pytest.raises(ValueError, match="listType=map"):
            status.upsert("log", {"id": 2}, key="id")


names = st.sampled_from("abc")
changes = st.lists(
    st.one_of(
        st.tuples(st.just("set"), names, st.integers(0, 2)),
        st.tuples(st.just("deep"), names, st.integers(0, 2)),
        st.tuples(st.just("remove"), names, st.just(0)),
        st.tuples(st.just("upsert"), names, st.integers(0, 2)),
        st.tuples(st.just("drop"), names, st.just(0)),
    ),
    max_size=4,
)


def mine(status: Any, change: tuple[str, str, int]) -> None:
    verb, name, value = change
    if verb == "set":
        status.set(f"mine-{name}", value)
    elif verb == "deep":
        status.set(("deep", f"mine-{name}"), value)
    elif verb == "remove":
        status.remove(f"mine-{name}")
    elif verb == "upsert":
        status.upsert("channels", {"name": f"mine-{name}", "n": value}, key="name")
    else:
        status.mutate(
            lambda d: (
                d.update(channels=[c for c in d.get("channels", []) if c["name"] != f"mine-{name}"])
                if "channels" in d
                else None
            )
        )


def expected(state: dict[Any, int], change: tuple[str, str, int]) -> None:
    verb, name, value = change
    if verb in ("set", "deep", "upsert"):
        state[verb, name] = value
    else:
        state.pop(("set" if verb == "remove" else "upsert", name), None)


theirs = st.fixed_dictionaries(
    {},
    optional={
        "theirs": st.integers(0, 2),
        "deep": st.fixed_dictionaries({"theirs": st.integers(0, 2)}),
        "channels": st.lists(names, unique=True, min_size=1).map(
            lambda ns: [{"name": f"their-{n}", "n": 1} for n in ns]
        ),
    },
)


@settings(deadline=None, max_examples=examples(150))
@given(st.lists(st.tuples(theirs, changes), max_size=5), st.booleans())
def test_two_managers_never_lose_each_others_fields(rounds, patched_first) -> None:
    server = Owning()
    state: dict[Any, int] = {}
    if patched_first:
        with StatusBatcher(server.blocking_writer(), server.document()) as status:
            mine(status, ("set", "a", 9))
        state["set", "a"] = 9
    foreign: Doc = {}
    for foreign, own in rounds:
        server.foreign_apply(foreign)
        apply(server, *[lambda s, c=change: mine(s, c) for change in own])
        for change in own:
            expected(state, change)
        assert without_empty(server.status) == without_empty(combined(state, foreign))


def combined(state: dict[Any, int], foreign: Doc) -> Doc:
    result = copy.deepcopy(foreign)
    for (verb, name), value in state.items():
        if verb == "set":
            result[f"mine-{name}"] = value
        elif verb == "deep":
            result.setdefault("deep", {})[f"mine-{name}"] = value
        else:
            result.setdefault("channels", []).append({"name": f"mine-{name}", "n": value})
    return result


def without_empty(status: Doc) -> Doc:
    result = {key: value for key, value in status.items() if value not in ({}, [])}
    if "channels" in result:
        result["channels"] = sorted(result["channels"], key=lambda item: item["name"])
    return result
