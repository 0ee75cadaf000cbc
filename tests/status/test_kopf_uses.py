"""The uses that a batcher accepts and refuses inside kopf, and repeated calls of its function by kopf."""

from __future__ import annotations

import copy
from typing import Any

import kopf
import pytest
from kopf._cogs.structs.bodies import Body
from kopf._cogs.structs.patches import Patch

from reconciler.clock import SystemClock
from reconciler.status import StatusBatcher, StatusNotOpen


def raw(**status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Database",
        "metadata": {"name": "db1", "namespace": "prod", "uid": "u1", "resourceVersion": "5", "generation": 2},
        "spec": {},
        **({"status": status} if status else {}),
    }


def handler_arguments(**status: Any) -> tuple[Any, Any]:
    body = Body(raw(**status))
    return Patch(body=body), body


def newer(version: str, manager: str = "kopf", **status: Any) -> dict[str, Any]:
    document = raw(**status)
    document["metadata"]["resourceVersion"] = version
    fields = {f"f:{name}": {} for name in status}
    document["metadata"]["managedFields"] = [{"manager": manager, "fieldsV1": {"f:status": fields}}]
    return document


def called(patch: Any, document: dict[str, Any]) -> dict[str, Any]:
    """Return the body that results from the operations of kopf's patch."""
    result = copy.deepcopy(document)
    for function in patch.fns:
        function(result)
    return result


def test_one_function_is_left_in_the_patch_and_it_changes_only_the_status():
    patch, body = handler_arguments(total=1)
    with StatusBatcher(patch, body) as status:
        status.increment("total")
        status.set("deep.phase", "A")
    assert dict(patch) == {}
    assert len(patch.fns) == 1
    assert sorted(patch.as_json_patch(), key=lambda op: op["path"]) == [
        {"op": "add", "path": "/status/deep", "value": {"phase": "A"}},
        {"op": "replace", "path": "/status/total", "value": 2},
    ]


def test_nothing_is_left_when_nothing_changed_by_meaning():
    patch, body = handler_arguments(total=1.0, log=[{"a": None}])
    with StatusBatcher(patch, body) as status:
        status.set(total=1, log=[{}])
    assert not patch, "kopf delays its sleeping handlers if the patch is not empty"
    assert status.written is False
    assert status.statistics().suppressed == 1


def test_a_change_of_type_is_a_change():
    patch, body = handler_arguments(ready=1)
    with StatusBatcher(patch, body) as status:
        status.set(ready=True)
    assert patch.as_json_patch() == [{"op": "replace", "path": "/status/ready", "value": True}]


def test_the_body_of_another_object_is_refused():
    patch, body = handler_arguments()
    other = raw()
    other["metadata"]["uid"] = "u2"
    with pytest.raises(TypeError, match="writes the handled object only"):
        StatusBatcher(patch, other)
    with pytest.raises(TypeError, match="writes the handled object only"):
        StatusBatcher(patch, body.status)


def test_a_kind_is_refused():
    patch, _ = handler_arguments()
    with pytest.raises(TypeError, match=r"StatusBatcher\(patch, body\)"):
        StatusBatcher(patch, "example.com/v1/Database", name="db1", namespace="prod")


def test_features_that_need_a_client_are_refused():
    patch, body = handler_arguments()
    with pytest.raises(ValueError, match="strategy='apply' needs a client"):
        StatusBatcher(patch, body, strategy="apply")
    with StatusBatcher(patch, body) as status, pytest.raises(TypeError, match="for a checkpoint open the batcher over"):
        status.flush()


def test_a_kopf_that_is_too_old_is_named(monkeypatch):
    old = type("Patch", (dict,), {"__module__": "kopf._cogs.structs.patches"})()
    with pytest.raises(TypeError, match=r"needs kopf 1\.44\.5 or newer"):
        StatusBatcher(old, raw())
    patch, body = handler_arguments()
    monkeypatch.setattr(kopf, "__version_tuple__", (1, 44, 4))
    with pytest.raises(TypeError, match=r"needs kopf 1\.44\.5 or newer, not 1\.44\.4"):
        StatusBatcher(patch, body)


def test_the_patch_is_recognized_by_its_public_name():
    assert issubclass(Patch, kopf.Patch)


def test_recording_ends_with_the_block():
    patch, body = handler_arguments()
    with StatusBatcher(patch, body) as status:
        status.set(phase="A")
    with pytest.raises(StatusNotOpen):
        status.set(phase="B")


def test_the_functions_repr_has_no_values():
    patch, body = handler_arguments()
    with StatusBatcher(patch, body) as status:
        status.set(password="hunter2")
    assert repr(patch.fns) == "[<status of example.com/v1/Database prod/db1: set>]"


def test_called_again_on_a_newer_version_it_is_replayed():
    patch, body = handler_arguments(total=1)
    with StatusBatcher(patch, body) as status:
        status.increment("total")
    assert called(patch, raw(total=1))["status"] == {"total": 2}
    assert called(patch, newer("6", "other", total=7))["status"] == {"total": 8}
    assert status.statistics().conflicts == 1


class StandingClock(SystemClock):
    """A clock whose time changes only when it is set."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_burst_of_changes_does_not_exhaust_the_attempts_but_a_lasting_refusal_does(caplog):
    clock = StandingClock()
    patch, body = handler_arguments(total=0)
    with StatusBatcher(patch, body, max_conflicts=5, flush_timeout=10, clock=clock) as status:
        status.increment("total")
    for version in range(6, 46):
        clock.seconds += 0.2
        assert called(patch, newer(str(version), "other", total=version))["status"] == {"total": version + 1}
    clock.seconds += 10
    assert called(patch, newer("46", "other", total=46))["status"] == {"total": 46}
    assert "could not write the status of example.com/v1/Database prod/db1 in 40 attempts" in caplog.text


def test_a_pause_of_the_process_during_a_burst_of_changes_does_not_exhaust_the_attempts():
    clock = StandingClock()
    patch, body = handler_arguments(total=0)
    with StatusBatcher(patch, body, max_conflicts=5, flush_timeout=10, clock=clock) as status:
        status.increment("total")
    for version in range(6, 13):
        assert called(patch, newer(str(version), "other", total=version))["status"] == {"total": version + 1}
    clock.seconds += 60
    assert called(patch, newer("13", "other", total=13))["status"] == {"total": 14}


def test_called_again_on_its_own_result_it_changes_nothing():
    patch, body = handler_arguments(total=1)
    with StatusBatcher(patch, body) as status:
        status.increment("total")
    called(patch, raw(total=1))
    assert called(patch, newer("6", total=2))["status"] == {"total": 2}


def test_an_equal_sum_of_another_writer_is_recognized_by_its_owner():
    patch, body = handler_arguments(total=1)
    with StatusBatcher(patch, body) as status:
        status.increment("total")
    called(patch, raw(total=1))
    assert called(patch, newer("6", "other", total=2))["status"] == {"total": 3}


def test_a_token_decides_after_another_writers_change():
    patch, body = handler_arguments(total=1)
    with StatusBatcher(patch, body, token="mark") as status:
        status.increment("total")
    mark = called(patch, raw(total=1))["status"]["mark"]
    assert called(patch, newer("6", "other", total=9, mark=mark))["status"] == {"total": 9, "mark": mark}


def test_mutations_recorded_after_the_lost_answer_are_still_written():
    patch, body = handler_arguments(total=1)
    with StatusBatcher(patch, body) as status:
        status.increment("total")
    called(patch, raw(total=1))
    with StatusBatcher(patch, body) as status:
        status.append("log", "later")
    assert called(patch, newer("6", total=2))["status"] == {"total": 2, "log": ["later"]}


def test_kopf_gets_an_event_when_a_retry_finds_nothing_to_write():
    patch, body = handler_arguments(total=1)
    with StatusBatcher(patch, body) as status:
        status.increment("total")
    called(patch, raw(total=1))
    stored = newer("6", total=2)
    assert called(patch, stored) == stored, "this object has no annotations of kopf"
    stored["metadata"]["annotations"] = {"my.example.com/kopf-managed": "yes", "my.example.com/work": "{}"}
    assert "my.example.com/touch-dummy" in called(patch, stored)["metadata"]["annotations"]


def test_kopf_gets_no_event_for_a_timer_whose_handlers_run_anyway():
    patch, body = handler_arguments(total=1)
    with StatusBatcher(patch, body) as status:
        status.increment("total")
    called(patch, raw(total=1))
    with StatusBatcher(patch, body) as status:
        status.set(phase=None)
    stored = newer("6", total=2)
    stored["metadata"]["annotations"] = {"kopf.zalando.org/last-handled-configuration": "{}"}
    assert called(patch, stored) == stored


def test_a_later_run_sees_waiting_mutations_once_even_if_they_are_stored():
    patch, body = handler_arguments(total=1)
    with StatusBatcher(patch, body) as status:
        status.increment("total")
    with StatusBatcher(patch, body) as status:
        assert status.current == {"total": 2}
    called(patch, raw(total=1))
    body._replace_with(newer("6", total=2))
    with StatusBatcher(patch, body) as status:
        assert status.current == {"total": 2}


def test_a_mutation_that_cannot_be_applied_never_stops_kopf(caplog):
    patch, body = handler_arguments()
    with StatusBatcher(patch, body) as status:
        status.append("log", "own")
        status.increment("total")
    assert called(patch, newer("6", "other", log="text"))["status"] == {"log": "text", "total": 1}
    assert "append of log cannot be applied" in caplog.text


def test_metrics_count_what_is_handed_to_kopf():
    heard: list[dict[str, Any]] = []

    class Metrics:
        def flushed(self, **counts: Any) -> None:
            heard.append({name: counts[name] for name in ("written", "suppressed", "fields")})

    patch, body = handler_arguments(total=1)
    for step in (1, 0):
        with StatusBatcher(patch, body, metrics=Metrics()) as status:
            status.increment("total", step)
            status.set(phase="A")
    assert heard == [
        {"written": True, "suppressed": False, "fields": 2},
        {"written": False, "suppressed": True, "fields": 0},
    ]
