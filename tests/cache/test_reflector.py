"""The reflector, step by step, against a scripted server."""

from __future__ import annotations

import asyncio
import gc
import logging
from itertools import pairwise
from typing import Any

import pytest

from reconciler.cache import CachedObject
from reconciler.cache.decoding import WireReader
from reconciler.errors import NotSent, OutcomeUnknown
from tests.cache.scripted import (
    GVK,
    HOLD,
    TIMEOUT,
    Mirror,
    Script,
    added,
    bookmark,
    deleted,
    document,
    error_line,
    line,
    modified,
    refused,
)

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def script() -> Script:
    return Script()


def gaps(script: Script) -> list[float]:
    return [later.at - earlier.at for earlier, later in pairwise(script.asked)]


# lists


async def test_the_first_list_is_streamed_and_consistent(script: Script) -> None:
    script.streamed("a", "b", version=7)
    mirror = Mirror(script)
    await mirror.run(1)
    assert mirror.told == [("list", ["a", "b"], 7)]
    (asked,) = script.asked
    assert asked.streams
    assert asked.query["resourceVersionMatch"] == "NotOlderThan"
    assert asked.query["allowWatchBookmarks"] == "true"
    assert asked.version is None


async def test_the_stream_continues_as_the_watch(script: Script) -> None:
    script.streamed("a", version=7, then=[modified("a", 8), added("b", 9), deleted("a", 10), HOLD])
    mirror = Mirror(script)
    await mirror.run(1)
    assert mirror.told == [("list", ["a"], 7), ("MODIFIED", "a", 8), ("ADDED", "b", 9), ("DELETED", "a", 10)]
    assert len(script.asked) == 1


async def test_changes_among_the_initial_events_are_part_of_the_list(script: Script) -> None:
    script.watch(added("a", 1), added("b", 2), modified("a", 3), deleted("b", 4), bookmark(7, ends_initial=True), HOLD)
    mirror = Mirror(script)
    await mirror.run(1)
    assert mirror.told == [("list", ["a"], 7)]


@pytest.mark.parametrize("code", [400, 405, 422])
async def test_a_refused_stream_falls_back_to_pages_without_delay_and_for_good(script: Script, code: int) -> None:
    script.refuse_watch(refused(code))
    script.list(document("a", 1), version=7)
    script.watch(error_line(410, "Expired"))
    script.list(document("a", 1), version=8)
    mirror = Mirror(script)
    await mirror.run(30)
    assert [asked.verb for asked in script.asked] == ["watch", "list", "watch", "list", "watch"]
    assert [asked.streams for asked in script.asked] == [True, False, False, False, False]
    assert script.asked[1].at == 0.0
    assert script.asked[1].query == {"limit": "500"}
    assert script.asked[2].version == "7"


async def test_pages_are_followed(script: Script) -> None:
    script.refuse_watch(refused(400))
    script.list(document("a", 1), version=7, token="more")
    script.list(document("b", 2), version=7)
    mirror = Mirror(script)
    await mirror.run(1)
    assert mirror.told == [("list", ["a", "b"], 7)]
    assert script.asked[2].query == {"limit": "500", "continue": "more"}


async def test_a_page_that_expires_is_followed_by_a_list_without_pages(script: Script) -> None:
    script.refuse_watch(refused(400))
    script.list(document("a", 1), version=7, token="more")
    script.refuse_list(refused(410, "Expired"))
    script.list(document("a", 1), document("b", 2), version=9)
    mirror = Mirror(script)
    await mirror.run(5)
    assert mirror.told == [("list", ["a", "b"], 9)]
    assert script.asked[3].query == {}


async def test_pages_are_used_if_requested_and_again_after_a_gap(script: Script) -> None:
    script.list(document("a", 1), version=7, token="more")
    script.list(document("b", 2), version=7)
    script.watch(error_line(410, "Expired"))
    script.list(document("b", 2), version=9)
    mirror = Mirror(script, in_pages=True)
    await mirror.run(30)
    assert mirror.told == [("list", ["a", "b"], 7), ("list", ["b"], 9)]
    assert [asked.verb for asked in script.asked] == ["list", "list", "watch", "list", "watch"]
    assert [asked.streams for asked in script.asked] == [False] * 5
    assert script.asked[4].version == "9"


async def test_if_listing_is_forbidden_the_list_is_streamed_although_pages_were_requested(script: Script) -> None:
    script.refuse_list(refused(403, "Forbidden"))
    script.streamed("a", version=7)
    mirror = Mirror(script, in_pages=True)
    await mirror.run(30)
    assert mirror.told == [("list", ["a"], 7)]


async def test_the_next_page_is_requested_before_the_current_one_is_decoded(script: Script) -> None:
    read: list[tuple[str, int]] = []

    class Reader(WireReader):
        def read(self, raw: Any) -> CachedObject | None:
            found = super().read(raw)
            read.append((found.name if found is not None else "", len(script.asked)))
            return found

    script.list(document("a", 1), version=7, token="more")
    script.list(document("b", 2), version=7)
    mirror = Mirror(script, in_pages=True, reader=Reader(GVK))
    await mirror.run(1)
    assert read == [("a", 2), ("b", 2)]


async def test_a_failed_page_leaves_no_task_behind_when_decoding_the_previous_one_fails(script: Script) -> None:
    left: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))

    class Reader(WireReader):
        def read(self, raw: Any) -> CachedObject | None:
            if len(script.asked) == 2:
                raise RuntimeError("no object")
            return super().read(raw)

    script.list(document("a", 1), version=7, token="more")
    script.refuse_list(refused(410, "Expired"))
    script.list(document("a", 1), version=8)
    mirror = Mirror(script, in_pages=True, reader=Reader(GVK))
    await mirror.run(30)
    gc.collect()
    assert mirror.told == [("list", ["a"], 8)]
    assert left == []


async def test_stopping_in_the_middle_of_a_page_ends_the_request_for_the_next_one() -> None:
    ended: list[str] = []
    second = asyncio.Event()

    class Slow(Script):
        async def raw_list(self, *arguments: Any, **options: Any) -> bytes:
            if self.asked:
                second.set()
            try:
                return await super().raw_list(*arguments, **options)
            except asyncio.CancelledError:
                await asyncio.sleep(1)  # a connection is closed
                ended.append("request")
                raise

    script = Slow()
    script.list(*(document(f"o{number}", number) for number in range(1, 501)), version=7, token="more")
    task = asyncio.create_task(Mirror(script, in_pages=True).reflector.run())
    await second.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended == ["request"]


async def test_a_stream_cut_before_its_end_mark_is_followed_by_pages_once(script: Script) -> None:
    script.watch(added("a", 1))
    script.list(document("a", 1), version=7)
    script.watch(error_line(410, "Expired"))
    script.streamed("a", version=8)
    mirror = Mirror(script)
    await mirror.run(30)
    assert mirror.told == [("list", ["a"], 7), ("list", ["a"], 8)]
    assert [asked.streams for asked in script.asked] == [True, False, False, True]


async def test_after_an_expired_page_one_list_is_unpaged_even_if_it_fails(script: Script) -> None:
    script.list(document("a", 1), version=7, token="next")
    script.refuse_list(refused(410, "Expired"))
    script.refuse_list(refused(504, "Timeout"))  # the whole list is too much
    script.list(document("a", 1), version=8, token="next")
    script.list(document("b", 2), version=8)
    script.watch(error_line(410, "Expired"))
    script.list(document("a", 1), version=9)
    mirror = Mirror(script, in_pages=True)
    await mirror.run(60)
    assert [asked.query.get("limit") for asked in script.asked if asked.verb == "list"] == [
        *("500", "500", None, "500", "500", "500")
    ]
    assert mirror.told == [("list", ["a", "b"], 8), ("list", ["a"], 9)]


async def test_a_server_without_streamed_lists_is_recognized_by_its_silence(script: Script) -> None:
    script.watch(added("a", 1), HOLD)
    script.list(document("a", 1), version=7)
    script.watch(error_line(410, "Expired"))
    script.list(document("a", 1), version=8)
    mirror = Mirror(script)
    await mirror.run(60)
    assert mirror.told == [("list", ["a"], 7), ("list", ["a"], 8)]
    assert script.asked[0].closed
    assert 10 <= script.asked[1].at < 12


async def test_later_lists_are_not_older_than_what_is_known(script: Script) -> None:
    script.streamed("a", version=7, then=[modified("a", 8), error_line(410, "Expired")])
    script.streamed("a", version=9, then=[bookmark(11), error_line(410, "Expired")])
    script.refuse_watch(refused(400))
    script.list(version=12)
    mirror = Mirror(script)
    await mirror.run(60)
    later = [(asked.version, asked.query.get("resourceVersionMatch")) for asked in script.asked[1:4]]
    assert later == [("8", "NotOlderThan"), ("11", "NotOlderThan"), ("11", "NotOlderThan")]


async def test_version_zero_is_never_requested(script: Script) -> None:
    script.refuse_watch(refused(400))
    script.list(document("a", "0"), version=0)  # an aggregated API without versions
    script.watch(added("a", 0), 5.0)
    script.list(version="")
    script.watch(HOLD)
    mirror = Mirror(script)
    await mirror.run(60)
    assert [asked.verb for asked in script.asked] == ["watch", "list", "watch", "list", "watch"]
    assert [asked.version for asked in script.asked] == [None] * 5


async def test_an_answer_that_is_not_a_list_is_a_failure(script: Script) -> None:
    script.refuse_watch(refused(400))
    script.answers.append(("list", b"<html>sign in</html>"))
    script.list(version=7)
    mirror = Mirror(script)
    await mirror.run(5)
    assert mirror.told == [("list", [], 7)]


# versions


async def test_events_and_bookmarks_advance_the_version(script: Script) -> None:
    script.streamed("a", version=7, then=[modified("a", 8)])
    script.watch(bookmark(20), 30.0)
    script.watch(HOLD)
    mirror = Mirror(script)
    await mirror.run(60)
    assert [asked.version for asked in script.asked] == [None, "8", "20"]
    assert mirror.told[-1] == ("BOOKMARK", 20)


async def test_after_a_normal_close_the_watch_resumes_immediately_without_a_list(script: Script) -> None:
    script.streamed("a", version=7, then=[300.0])
    script.watch(300.0)
    script.watch(HOLD)
    mirror = Mirror(script)
    await mirror.run(700)
    assert [asked.verb for asked in script.asked] == ["watch"] * 3
    assert [asked.version for asked in script.asked] == [None, "7", "7"]
    assert [asked.at for asked in script.asked] == [0.0, 300.0, 600.0]
    assert mirror.reflector.last_failure is None
    assert mirror.reflector.statistics().failures == 0


async def test_watches_that_end_after_an_event_are_not_reopened_in_a_hot_loop(script: Script) -> None:
    script.streamed("a", version=7, then=[])
    for version in range(8, 1000):
        script.watch(modified("a", version) if version % 2 else bookmark(version))
    mirror = Mirror(script)
    await mirror.run(60)
    assert 50 <= len(script.asked) <= 61
    assert mirror.reflector.statistics().failures == 0
    assert mirror.told[-1][-1] == len(script.asked) + 6


@pytest.mark.parametrize(
    ("error", "verb", "version"),
    [
        (error_line(410, "Expired"), "list", "12"),
        (error_line(500, "InternalError"), "list", "12"),
        (error_line(403, "Forbidden"), "list", "12"),
        (error_line(429, "TooManyRequests", retryAfterSeconds=1), "watch", "12"),
    ],
)
async def test_after_an_error_inside_the_stream_the_watch_resumes_at_the_last_event(
    script: Script, error: bytes, verb: str, version: str
) -> None:
    script.refuse_watch(refused(400))
    script.list(document("a", 1), version=7)
    script.watch(modified("a", 10), modified("a", 12), 2.0, error)
    if verb == "list":
        script.list(document("a", 12), version=13)
    script.watch(HOLD)
    await Mirror(script).run(60)
    asked = script.asked[3]
    assert (asked.verb, asked.version) == (verb, version)
    assert asked.query.get("resourceVersionMatch") == ("NotOlderThan" if verb == "list" else None)
    assert script.asked[-1].version == ("13" if verb == "list" else "12")


async def test_the_watch_timeout_is_drawn_from_five_to_ten_minutes(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0])
    for _ in range(20):
        script.watch(2.0)
    await Mirror(script).run(100)
    timeouts = {int(asked.query["timeoutSeconds"]) for asked in script.asked}
    assert all(300 <= seconds <= 600 for seconds in timeouts)
    assert len(timeouts) > 10


async def test_a_list_older_than_what_is_known_is_ignored_and_repeated_consistently(script: Script) -> None:
    script.refuse_watch(refused(400))
    script.list(document("a", 5), version=7)
    script.watch(error_line(410, "Expired"))
    script.list(version=6)
    script.list(document("a", 5), version=9)
    mirror = Mirror(script)
    await mirror.run(30)
    assert mirror.told == [("list", ["a"], 7), ("list", ["a"], 9)]
    assert [asked.version for asked in script.asked[3:5]] == ["7", None]
    assert mirror.reflector.statistics().stale_lists == 1


async def test_a_consistent_list_older_than_what_is_known_is_a_restart(script: Script) -> None:
    script.streamed("a", version=70, then=[error_line(410, "Expired")])
    script.watch(bookmark(3, ends_initial=True))  # a response to "not older than 70": not trusted yet
    script.streamed("b", version=4)
    mirror = Mirror(script)
    await mirror.run(30)
    assert mirror.told == [("list", ["a"], 70), ("restart", ["b"], 4)]
    assert script.asked[2].version is None
    assert mirror.reflector.statistics().restarts == 1


@pytest.mark.parametrize("fallen", [bookmark(5), modified("a", 5)])
async def test_decreasing_versions_within_a_watch_are_resolved_by_a_consistent_list(
    script: Script, fallen: bytes
) -> None:
    script.streamed("a", version=70, then=[fallen, HOLD])
    script.streamed("a", version=6)
    mirror = Mirror(script)
    await mirror.run(30)
    assert mirror.told == [("list", ["a"], 70), ("restart", ["a"], 6)]
    assert script.asked[1].version is None


TOO_LARGE = {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}


async def test_a_server_that_is_behind_is_waited_for_without_an_error(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.streamed("a", version=70, then=[error_line(410, "Expired")])
    script.refuse_watch(
        refused(504, "Timeout", "Too large resource version: 70, current: 60", retry_after=1, **TOO_LARGE)
    )
    script.refuse_watch(
        refused(504, "Timeout", "Too large resource version: 70, current: 65", retry_after=1, **TOO_LARGE)
    )
    script.streamed("a", version=71)
    caplog.clear()
    mirror = Mirror(script)
    await mirror.run(30)
    assert [asked.version for asked in script.asked] == [None, "70", "70", "70"]
    assert all(1 <= gap <= 1.1 for gap in gaps(script)[1:])
    counts = mirror.reflector.statistics()
    assert (counts.behind, counts.failures) == (2, 1)
    assert "behind" not in "".join(record.message for record in caplog.records if record.levelno >= logging.WARNING)


async def test_a_server_that_stays_behind_is_asked_for_a_consistent_list(script: Script) -> None:
    script.streamed("a", version=70, then=[error_line(410, "Expired")])
    for _ in range(5):
        script.refuse_watch(refused(504, "Timeout", "Too large resource version", retry_after=1, **TOO_LARGE))
    script.streamed("b", version=4)
    mirror = Mirror(script)
    await mirror.run(60)
    assert script.asked[-1].version is None
    assert mirror.told[-1] == ("restart", ["b"], 4)


async def test_an_opaque_version_is_passed_on_unchanged(script: Script) -> None:
    script.refuse_watch(refused(400))
    script.list(document("a", "x1"), version="opaque-1")
    script.watch(modified("a", "x2"), 5.0)  # type: ignore[arg-type]
    script.watch(HOLD)
    await Mirror(script).run(30)
    assert [asked.version for asked in script.asked[2:]] == ["opaque-1", "x2"]


# 410


async def test_410_inside_the_watch_lists_again_immediately(script: Script) -> None:
    script.streamed("a", version=7, then=[200.0, error_line(410, "Expired")])
    script.streamed("a", version=9)
    mirror = Mirror(script)
    await mirror.run(300)
    assert mirror.told == [("list", ["a"], 7), ("list", ["a"], 9)]
    assert gaps(script) == [200.0]
    assert mirror.reflector.statistics().expired == 1


async def test_410_as_the_answer_to_a_watch_lists_again(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0])
    script.refuse_watch(refused(410, "Expired"))
    script.streamed("a", version=9)
    mirror = Mirror(script)
    await mirror.run(30)
    assert mirror.told == [("list", ["a"], 7), ("list", ["a"], 9)]


async def test_410_as_the_answer_to_a_list_lists_without_a_version(script: Script) -> None:
    script.refuse_watch(refused(400))
    script.list(version=7)
    script.watch(error_line(410, "Expired"))
    script.refuse_list(refused(410, "Expired"))
    script.list(version=9)
    mirror = Mirror(script)
    await mirror.run(30)
    assert [asked.version for asked in script.asked if asked.verb == "list"] == [None, "7", None]


async def test_410_inside_the_initial_events_lists_without_a_version(script: Script) -> None:
    script.streamed("a", version=7, then=[error_line(410, "Expired")])
    script.watch(added("a", 1), error_line(410, "Expired"))
    script.streamed("a", version=9)
    mirror = Mirror(script)
    await mirror.run(30)
    assert [asked.version for asked in script.asked] == [None, "7", None]
    assert mirror.told == [("list", ["a"], 7), ("list", ["a"], 9)]


async def test_repeated_410_is_not_a_hot_loop(script: Script) -> None:
    for version in range(7, 57):
        script.streamed("a", version=version, then=[error_line(410, "Expired")])
    await Mirror(script).run(60)
    assert len(script.asked) <= 9


# 429


async def test_429_honors_retry_after_and_keeps_the_version(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0])
    script.refuse_watch(refused(429, "TooManyRequests", retry_after=20))
    script.watch(HOLD)
    await Mirror(script).run(60)
    assert [asked.version for asked in script.asked] == [None, "7", "7"]
    assert 20 <= gaps(script)[1] <= 22


async def test_429_inside_the_watch_honors_retry_after_and_keeps_the_version(script: Script) -> None:
    script.streamed("a", version=7, then=[error_line(429, "TooManyRequests", retryAfterSeconds=20)])
    script.watch(HOLD)
    await Mirror(script).run(60)
    assert [asked.version for asked in script.asked] == [None, "7"]
    assert 20 <= gaps(script)[0] <= 22


async def test_429_on_the_streamed_list_repeats_the_same_request(script: Script) -> None:
    script.refuse_watch(refused(429, "TooManyRequests", retry_after=5))
    script.streamed("a", version=7)
    await Mirror(script).run(60)
    assert [asked.streams for asked in script.asked] == [True, True]
    assert 5 <= gaps(script)[0] <= 5.5


async def test_429_without_retry_after_backs_off(script: Script) -> None:
    for _ in range(100):
        script.refuse_watch(refused(429, "TooManyRequests"))
    await Mirror(script).run(10)
    assert len(script.asked) <= 6


# other failures

FAILURES = [
    NotSent("connection refused"),
    OutcomeUnknown("connection reset"),
    RuntimeError("a fault of our own"),
    *(refused(code, retry_after=None) for code in (401, 403, 404, 409, 418, 429, 500, 502, 503, 504)),
]


@pytest.mark.parametrize(
    "failure", FAILURES, ids=lambda error: f"{type(error).__name__}-{getattr(error, 'status', '')}"
)
async def test_every_failure_of_a_list_backs_off(script: Script, failure: Exception) -> None:
    script.refuse_watch(refused(400))
    for _ in range(100):
        script.refuse_list(failure)
    await Mirror(script).run(300)
    assert 10 <= len(script.asked) <= 20
    assert sum(asked.at < 1 for asked in script.asked) <= 3  # the refused stream, and two
    assert max(gaps(script)) <= 45


@pytest.mark.parametrize(
    "failure", FAILURES, ids=lambda error: f"{type(error).__name__}-{getattr(error, 'status', '')}"
)
async def test_every_failure_of_a_watch_backs_off_and_the_watch_resumes(script: Script, failure: Exception) -> None:
    script.streamed("a", version=7, then=[2.0])
    script.refuse_watch(failure)
    mirror = Mirror(script)
    await mirror.run(2.3)  # the shortest delay is 0.4 s
    assert len(script.asked) == 2
    assert mirror.reflector.statistics().failures == 1


@pytest.mark.parametrize("failure", [NotSent("refused"), OutcomeUnknown("reset"), refused(500), refused(503)])
async def test_after_trouble_with_the_server_the_newest_object_decides_whether_the_version_is_still_valid(
    script: Script, failure: Exception
) -> None:
    script.streamed("a", "b", version=7, then=[2.0])
    for _ in range(6):
        script.refuse_watch(failure)
    script.watch(HOLD)
    script.recognized("a", "b", version=9)
    mirror = Mirror(script)
    await mirror.run(300)
    assert [asked.version for asked in script.asked if asked.verb == "watch"] == [None, *["7"] * 7]
    named = (("fieldSelector", "metadata.name=b"),)
    assert {tuple(asked.query.items()) for asked in script.asked if asked.verb == "list"} == {named}
    assert len(mirror.told) == 1


async def test_objects_that_changed_during_the_trouble_prove_nothing_and_the_next_one_is_checked(
    script: Script,
) -> None:
    script.streamed("a", "b", "c", version=7, then=[2.0])
    script.refuse_watch(NotSent("refused"))
    script.watch(HOLD)
    script.list(document("c", 20), version=30)
    script.list(document("b", 8), version=30)
    script.list(document("a", 1), version=30)
    mirror = Mirror(script)
    await mirror.run(300)
    assert [asked.version for asked in script.asked if asked.verb == "watch"] == [None, "7", "7"]
    assert len(mirror.told) == 1


@pytest.mark.parametrize("names", [["a"], list("abcdefg")])
async def test_when_all_of_the_newest_changed_during_the_trouble_a_list_decides(
    script: Script, names: list[str]
) -> None:
    script.streamed(*names, version=9, then=[2.0])
    script.refuse_watch(NotSent("refused"))
    script.watch(HOLD)
    for number, name in enumerate(names[::-1][:5]):
        script.list(document(name, 20 + number), version=30)
    script.streamed("z", version=31)
    mirror = Mirror(script)
    await mirror.run(300)
    assert mirror.told[-1] == ("list", ["z"], 31)
    assert script.asked[-1].version is None


async def test_a_watch_that_is_forbidden_for_a_while_keeps_its_version(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0])
    for _ in range(6):
        script.refuse_watch(refused(403))
    script.watch(HOLD)
    await Mirror(script).run(300)
    assert [asked.version for asked in script.asked] == [None, *["7"] * 7]


@pytest.mark.parametrize(
    ("objects", "version"), [([document("a", 90, uid="other")], 99), ([], 99), ([document("a", 1)], 3)]
)
async def test_a_server_with_another_history_is_listed_even_when_its_versions_have_passed_what_is_known(
    script: Script, objects: list[dict[str, Any]], version: int
) -> None:
    script.streamed("a", "b", version=7, then=[2.0])
    script.refuse_watch(NotSent("connection refused"))
    script.watch(HOLD)
    script.list(*objects, version=version)
    script.streamed("c", version=version)
    mirror = Mirror(script)
    await mirror.run(300)
    assert mirror.told[-1] == ("restart" if version < 7 else "list", ["c"], version)


ENDS = {"clean": [20.0], "silent": [700.0], "error": [20.0, error_line(429)], "torn": [20.0, OutcomeUnknown("reset")]}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "undone", [[document("b", 1)], [document("b", 6)], [document("b", 2, uid="other")], [document("b", 2, spec={})], []]
)
async def test_a_history_that_was_rewritten_and_has_passed_what_is_known_is_noticed_however_the_watch_ended(
    script: Script, end: str, undone: list[dict[str, Any]]
) -> None:
    script.streamed("a", "b", version=7, then=ENDS[end])
    script.watch(modified("x", 12), HOLD)
    script.list(*undone, version=11)
    script.streamed("c", version=12)
    mirror = Mirror(script)
    await mirror.run(800)
    assert mirror.told == [("list", ["a", "b"], 7), ("list", ["c"], 12)]


@pytest.mark.parametrize("back", [document("c", 3), document("c", 12), document("c", 5, uid="other")])
async def test_a_deletion_that_was_undone_is_noticed(script: Script, back: dict[str, Any]) -> None:
    script.streamed("a", "b", "c", version=7, then=[deleted("c", 8), 20.0])
    script.watch(HOLD)
    script.list(back, version=13)
    script.streamed("c", version=14)
    mirror = Mirror(script)
    await mirror.run(60)
    assert mirror.told[-1] == ("list", ["c"], 14)


@pytest.mark.parametrize("now", [[], [document("c", 12, uid="other")]], ids=["gone", "created again"])
async def test_a_deletion_that_was_not_undone_proves_nothing_and_the_newest_object_is_checked(
    script: Script, now: list[dict[str, Any]]
) -> None:
    script.streamed("a", "b", "c", version=7, then=[deleted("c", 8), 20.0])
    script.watch(HOLD)
    script.list(*now, version=13)
    script.list(document("b", 2), version=13)
    await Mirror(script).run(60)
    assert [asked.version for asked in script.asked if asked.verb == "watch"] == [None, "8"]


async def test_a_watch_that_ran_for_its_time_is_not_followed_by_a_look_up(script: Script) -> None:
    script.streamed("a", version=7, then=[TIMEOUT])
    for _ in range(20):
        script.watch(TIMEOUT)
    await Mirror(script).run(20 * 300)
    assert len(script.asked) > 10
    assert script.looked_up == []


async def test_history_that_cannot_be_verified_now_is_verified_later(script: Script) -> None:
    script.streamed("a", "b", version=7, then=[20.0])
    script.refuse(refused(403), times=4)  # the role is missing in the backup, too
    script.watch(HOLD)
    script.list(document("b", 1), version=11)
    script.streamed("c", version=12)
    mirror = Mirror(script)
    await mirror.run(60)
    assert mirror.told[-1] == ("list", ["c"], 12)


async def test_a_client_that_may_only_watch_resumes_at_the_known_version(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0])
    script.refuse_watch(NotSent("connection refused"))
    script.watch(modified("a", 8), HOLD)
    script.refuse_list(refused(403))
    mirror = Mirror(script)
    await mirror.run(300)
    assert mirror.told[-1] == ("MODIFIED", "a", 8)


@pytest.mark.parametrize("code", [400, 404, 422])
async def test_a_watch_rejected_for_its_parameters_is_followed_by_a_list(script: Script, code: int) -> None:
    script.streamed("a", version=7, then=[2.0])
    script.refuse_watch(refused(code))
    script.streamed("a", version=8)
    mirror = Mirror(script)
    await mirror.run(30)
    assert mirror.told == [("list", ["a"], 7), ("list", ["a"], 8)]


async def test_a_lasting_403_costs_at_most_two_requests_in_the_first_second(script: Script) -> None:
    for seed in range(50):
        script = Script()
        script.refuse(refused(403, "Forbidden"), times=100)
        began = asyncio.get_running_loop().time()
        await Mirror(script, seed=seed).run(1)
        assert len(script.asked) <= 2
        assert script.asked[0].at == began


async def test_a_watch_refused_permanently_also_costs_at_most_two_requests_in_the_first_second() -> None:
    for seed in range(50):
        script = Script()
        script.refuse_watch(refused(400, "BadRequest"))
        script.list(document("a", 1), version=7)
        for _ in range(100):
            script.refuse_watch(refused(403, "Forbidden"))
        await Mirror(script, seed=seed).run(1)
        began = script.asked[1].at
        assert len([asked for asked in script.asked if asked.at > began]) <= 2


async def test_a_client_that_may_watch_but_not_list_gets_streamed_lists(script: Script) -> None:
    script.watch(added("a", 1))
    script.refuse_list(refused(403, "Forbidden"))
    script.streamed("a", version=7)
    mirror = Mirror(script)
    await mirror.run(10)
    assert mirror.told == [("list", ["a"], 7)]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 418, 500, 503, 504, 599, 0])
async def test_no_error_event_ends_the_reflector(script: Script, code: int) -> None:
    script.streamed("a", version=7, then=[2.0, error_line(code, message="etcd is tired")])
    script.streamed("a", version=9, then=[modified("a", 10), HOLD])
    mirror = Mirror(script)
    await mirror.run(30)
    assert mirror.told == [("list", ["a"], 7), ("list", ["a"], 9), ("MODIFIED", "a", 10)]
    assert 2 < script.asked[1].at < 4


@pytest.mark.parametrize("garbage", [b"<html>\n", b"{}\n", b'{"type":"ADDED"}\n', b'{"type":"ERROR","object":7}\n'])
async def test_no_malformed_line_ends_the_reflector(script: Script, garbage: bytes) -> None:
    script.streamed("a", version=7, then=[garbage, HOLD])
    script.streamed("a", version=9)
    mirror = Mirror(script)
    await mirror.run(30)
    assert mirror.told == [("list", ["a"], 7), ("list", ["a"], 9)]


async def test_objects_of_another_kind_are_ignored(script: Script) -> None:
    script.streamed(
        "a", version=7, then=[line("MODIFIED", document("b", 8) | {"kind": "Table"}), modified("a", 9), HOLD]
    )
    mirror = Mirror(script)
    await mirror.run(5)
    assert mirror.told == [("list", ["a"], 7), ("MODIFIED", "a", 9)]


async def test_events_of_an_unknown_type_are_ignored(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    unknown = [line("RENAMED", document("a", version)) for version in (8, 9)]
    script.streamed("a", version=7, then=[*unknown, 2.0])
    script.watch(modified("a", 10), HOLD)
    reader = WireReader(GVK)
    mirror = Mirror(script, reader=reader)
    await mirror.run(5)
    assert mirror.told == [("list", ["a"], 7), ("BOOKMARK", 8), ("BOOKMARK", 9), ("MODIFIED", "a", 10)]
    assert script.asked[1].version == "9"  # they are not asked for again
    assert reader.unexpected == 2
    assert "ignoring an event of the type 'RENAMED' sent by the server: the type is unknown" in caplog.text
    assert len(caplog.records) == 1


async def test_a_watch_that_ends_immediately_without_an_event_is_a_failure(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0])
    for _ in range(100):
        script.watch()
    mirror = Mirror(script)
    await mirror.run(60)
    assert len(script.asked) <= 9
    assert mirror.reflector.last_failure is not None
    assert {asked.version for asked in script.asked[1:]} == {"7"}


async def test_a_cut_stream_is_resumed_after_its_last_complete_line(script: Script) -> None:
    whole, half = modified("a", 8), modified("a", 9)
    script.streamed("a", version=7, then=[whole + half[:40], OutcomeUnknown("reset")])
    script.watch(half[:10], half[10:], HOLD)
    script.list(document("a", 8), version=9)
    mirror = Mirror(script)
    await mirror.run(30)
    assert [asked.version for asked in script.asked if asked.verb == "watch"] == [None, "8"]
    assert mirror.told[1:] == [("MODIFIED", "a", 8), ("MODIFIED", "a", 9)]


async def test_delays_double_to_thirty_seconds_with_jitter(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0])
    for _ in range(100):
        script.refuse_watch(refused(500))
    await Mirror(script).run(600)
    waits = gaps(script)[1:]
    exact = [min(30.0, 0.8 * 2**n) for n in range(len(waits))]
    assert all(0.5 * wanted <= wait <= 1.5 * wanted for wait, wanted in zip(waits, exact, strict=True))
    assert len({round(wait / wanted, 3) for wait, wanted in zip(waits, exact, strict=True)}) > 5


async def test_the_backoff_is_reset_after_two_healthy_minutes(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0])
    for _ in range(6):
        script.refuse_watch(refused(403))
    for seconds in (119.0, 121.0):
        script.watch(seconds, OutcomeUnknown("reset"))
        script.recognized("a", version=9)
    script.watch(HOLD)
    await Mirror(script).run(480)
    *_, first, second, third = (asked.at for asked in script.asked if asked.verb == "watch")
    after_119, after_121 = second - first - 119, third - second - 121
    assert after_119 >= 15
    assert after_121 <= 1.2


# silence


async def test_a_busy_kind_of_a_server_that_ignores_the_request_for_initial_events_is_listed(script: Script) -> None:
    """It sends changes only, from now on, and is never silent."""
    changes = [part for version in range(10, 100) for part in (1.0, modified("a", version))]
    script.watch(*changes)
    script.list(document("a", 21), document("b", 2), version=21)
    script.watch(modified("a", 22), HOLD)
    mirror = Mirror(script)
    await mirror.run(30)
    assert mirror.told == [("list", ["a", "b"], 21), ("MODIFIED", "a", 22)]
    assert [asked.verb for asked in script.asked] == ["watch", "list", "watch"]
    assert 12 <= script.asked[1].at - script.asked[0].at < 15
    assert not script.asked[2].streams


async def test_a_long_streamed_list_is_not_given_up(script: Script) -> None:
    initial = [part for number in range(1, 40) for part in (9.0, added(f"n{number}", number))]
    script.watch(*initial, modified("n1", 40), 9.0, modified("n1", 41), bookmark(41, ends_initial=True), HOLD)
    mirror = Mirror(script)
    await mirror.run(500)
    assert [told[0] for told in mirror.told] == ["list"]
    assert len(script.asked) == 1


async def test_a_silent_watch_is_reopened_soon_after_its_timeout(script: Script) -> None:
    script.streamed("a", version=7)
    script.watch(HOLD)
    mirror = Mirror(script)
    await mirror.run(650)
    timeout = int(script.asked[0].query["timeoutSeconds"])
    assert timeout + 9 <= script.asked[1].at <= timeout + 13
    assert script.asked[0].closed
    assert script.asked[1].version == "7"
    assert mirror.reflector.statistics().silent == 1


async def test_silence_is_detected_sooner_with_bookmarks(script: Script) -> None:
    script.streamed("a", version=7, then=[60.0, bookmark(8), 60.0, bookmark(9), HOLD])
    script.watch(HOLD)
    mirror = Mirror(script)
    await mirror.run(350)
    assert 120 + 179 <= script.asked[1].at <= 120 + 183
    assert script.asked[1].version == "9"


async def test_bookmarks_that_stop_arriving_are_no_longer_expected(script: Script) -> None:
    script.streamed("a", version=7, then=[60.0, bookmark(8), HOLD])
    script.watch(HOLD)
    script.watch(HOLD)
    await Mirror(script).run(1000)
    timeout = int(script.asked[1].query["timeoutSeconds"])
    assert gaps(script)[0] < 60 + 185
    assert timeout + 9 <= gaps(script)[1] <= timeout + 13


async def test_a_slow_trickle_is_not_silence(script: Script) -> None:
    script.streamed("a", version=7, then=[part for n in range(8, 30) for part in (100.0, modified("a", n))])
    mirror = Mirror(script)
    await mirror.run(2250)
    assert len(script.asked) == 2
    assert mirror.reflector.statistics().silent == 0


# logging and the last failure


async def test_the_first_failure_of_its_kind_is_a_warning_and_repetitions_are_not(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "reconciler.cache")
    script.refuse(refused(403, "Forbidden", "databases is forbidden"), times=5)
    script.refuse(refused(500, "InternalError"))
    await Mirror(script).run(60)
    levels = [
        (record.levelno, "403" in record.message) for record in caplog.records if "next attempt" in record.message
    ]
    assert levels.count((logging.WARNING, True)) == 1
    assert levels.count((logging.WARNING, False)) == 1
    assert levels.count((logging.DEBUG, True)) == 4


async def test_the_last_failure_has_action_target_and_answer(script: Script) -> None:
    script.refuse_watch(refused(403, "Forbidden", "no rights"))
    script.refuse_list(refused(403, "Forbidden", "no rights"))
    mirror = Mirror(script)
    await mirror.run(2)
    assert (
        str(mirror.reflector.last_failure) == "list databases.example.com in namespace prod: 403 Forbidden: no rights"
    )


async def test_an_unexpected_exception_is_logged_with_its_traceback_and_keeps_no_objects_alive(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.refuse_watch(RuntimeError("a fault of our own"))
    mirror = Mirror(script)
    await mirror.run(0.3)
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert mirror.reflector.last_failure is not None
    assert mirror.reflector.last_failure.error.__traceback__ is None


async def test_the_last_failure_is_cleared_after_recovery(script: Script) -> None:
    script.refuse_watch(NotSent("connection refused"))
    script.streamed("a", version=7)
    mirror = Mirror(script)
    await mirror.run(5)
    assert mirror.reflector.last_failure is None
    assert mirror.reflector.statistics().failures == 1


async def test_cancellation_closes_the_stream(script: Script) -> None:
    script.streamed("a", version=7)
    await Mirror(script).run(5)
    assert script.asked[0].closed


# refresh


async def test_a_refresh_interrupts_the_watch_for_a_consistent_list(script: Script) -> None:
    script.streamed("a", version=7)
    script.streamed("a", "b", version=9, then=[modified("a", 10), HOLD])
    mirror = Mirror(script)
    task = asyncio.create_task(mirror.reflector.run())
    await asyncio.sleep(5)
    await mirror.reflector.refresh()
    assert mirror.told[:2] == [("list", ["a"], 7), ("list", ["a", "b"], 9)]
    assert [asked.version for asked in script.asked] == [None, None]
    assert script.asked[0].closed
    await asyncio.sleep(5)
    assert mirror.told[-1] == ("MODIFIED", "a", 10)
    assert mirror.reflector.statistics().failures == 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_refresh_ignores_a_list_that_started_before_it(script: Script) -> None:
    script.watch(added("a", 1), 5.0, bookmark(7, ends_initial=True), HOLD)
    script.streamed("b", version=9)
    mirror = Mirror(script)
    task = asyncio.create_task(mirror.reflector.run())
    await asyncio.sleep(2)
    first, second = asyncio.create_task(mirror.reflector.refresh()), asyncio.create_task(mirror.reflector.refresh())
    await asyncio.gather(first, second)
    assert mirror.told == [("list", ["b"], 9)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_refresh_survives_failures(script: Script) -> None:
    script.streamed("a", version=7)
    script.refuse_watch(refused(503))
    script.list(document("b", 1), version=9)
    mirror = Mirror(script)
    task = asyncio.create_task(mirror.reflector.run())
    await asyncio.sleep(2)
    await mirror.reflector.refresh()
    assert mirror.told[-1] == ("list", ["b"], 9)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_cancellation_during_a_refresh_ends_the_reflector(script: Script) -> None:
    script.streamed("a", version=7)
    mirror = Mirror(script)
    task = asyncio.create_task(mirror.reflector.run())
    await asyncio.sleep(2)
    refresh = asyncio.create_task(mirror.reflector.refresh())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    refresh.cancel()


async def test_a_request_that_is_cancelled_by_others_is_tried_again(script: Script) -> None:
    """Such as by a transport of the user that shares a task, for a token, with another request."""
    script.streamed("a", version=7, then=[asyncio.CancelledError()])
    script.watch(added("b", 8), HOLD)
    mirror = Mirror(script)
    await mirror.run(5)
    assert mirror.told == [("list", ["a"], 7), ("ADDED", "b", 8)]


async def test_pages_that_repeat_end_in_a_list_without_pages(script: Script) -> None:
    """As of an aggregated API server that knows the limit, but not the token."""
    script.list(document("a", 1), version=7, token="t")
    script.list(document("a", 1), version=7, token="t")
    script.list(document("a", 1), document("b", 2), version=7)
    script.watch(HOLD)
    mirror = Mirror(script, in_pages=True)
    await mirror.run(5)
    assert mirror.told == [("list", ["a", "b"], 7)]
    assert [asked.query.get("limit") for asked in script.asked] == ["500", "500", None, None]
