"""Plain `def` reconciles: in a thread, with the context variables, able to wait for the loop, always joined.

Most on real time, since their threads block until the test lets them go; nothing here waits for a clock to pass.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import hashlib
import threading

import pytest

from reconciler.apiserver import APIServer
from reconciler.controller import ReconcileCancelled, Reconciler, ResourceReconciler, Result, current_run
from reconciler.controller.reconcile.threads import ThreadBridge
from reconciler.controller.result import ControllerError, NotBound
from reconciler.errors import TerminalError
from reconciler.meta import Request
from reconciler.status import StatusBatcher
from tests.controller.conftest import Widget, World

KEY, FENCE = Request("w", "ns"), Request("fence", "ns")


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.001)


def until_told(reconciler: Reconciler, told: threading.Event) -> None:
    """Wait, in the thread, until it must stop."""
    try:
        while True:
            reconciler.wait(asyncio.sleep(0))
    except ReconcileCancelled:
        told.set()


class Threaded(Reconciler):
    def __init__(self, body) -> None:
        self.body = body
        self.runs = 0
        self.keys: list[Request] = []
        self.threads: set[int] = set()
        self.errors: list[BaseException] = []

    def reconcile(self, request):
        self.runs += 1
        self.keys.append(request)
        self.threads.add(threading.get_ident())
        try:
            return self.body(self, request)
        except BaseException as error:
            self.errors.append(error)
            raise


async def test_plain_def_runs_in_a_thread_of_the_controller(world: World) -> None:
    names = []

    def body(reconciler, request):
        names.append(threading.current_thread().name)

    reconciler = Threaded(body)
    controller = await world.start(reconciler, resource=Widget)
    controller.enqueue(KEY)
    await until(lambda: controller.statistics().reconciles == 1)
    assert names[0].startswith("widget-reconcile")
    assert threading.get_ident() not in reconciler.threads


async def test_context_variables_are_visible_in_the_thread(world: World) -> None:
    runs = []
    reconciler = Threaded(lambda reconciler, request: runs.append((current_run(), reconciler.run)))
    controller = await world.start(reconciler, resource=Widget)
    controller.enqueue(KEY, "why")
    await until(lambda: runs)
    assert runs[0][0].reasons == {"enqueue: why"}
    assert runs[0][1] is runs[0][0]


async def test_wait_runs_an_awaitable_on_the_loop(world: World) -> None:
    sizes = []

    def body(reconciler, request):
        sizes.append(reconciler.wait(reconciler.client.get(Widget, *request)).spec.size)

    await world.widget(size=7)
    await world.start(Threaded(body), resource=Widget)
    await until(lambda: sizes)
    assert sizes == [7]


async def test_wait_raises_what_the_awaitable_raises(world: World) -> None:
    from reconciler.errors import NotFound

    def body(reconciler, request):
        if reconciler.runs == 1:
            reconciler.wait(reconciler.client.get(Widget, "nobody", "ns"))

    reconciler = Threaded(body)
    controller = await world.start(reconciler, resource=Widget)
    controller.enqueue(KEY)
    await until(lambda: reconciler.runs == 2)
    assert isinstance(reconciler.errors[0], NotFound)


async def test_wait_on_the_loop_is_a_clear_error(world: World) -> None:
    class Confused(Reconciler):
        error = None

        async def reconcile(self, request):
            try:
                self.wait(asyncio.sleep(0))
            except ControllerError as error:
                self.error = error

    reconciler = Confused()
    controller = await world.start(reconciler, resource=Widget)
    controller.enqueue(KEY)
    await until(lambda: reconciler.error)
    assert "use await here" in str(reconciler.error)


async def test_wait_before_the_controller_started_is_a_clear_error(world: World) -> None:
    reconciler = Threaded(lambda reconciler, request: None)
    with pytest.raises(NotBound):
        reconciler.wait(asyncio.sleep(0))
    world.controller(reconciler, resource=Widget)
    with pytest.raises(NotBound, match="started"):
        reconciler.wait(asyncio.sleep(0))


async def test_results_and_errors_of_a_thread_count_like_others(world: World) -> None:
    def body(reconciler, request):
        if reconciler.runs == 1:
            raise RuntimeError("no")
        return Result(again=True) if reconciler.runs == 2 else None

    controller = await world.start(Threaded(body), resource=Widget)
    controller.enqueue(KEY)
    await until(lambda: controller.statistics().reconciles == 3)
    assert controller.statistics().results == {"error": 1, "requeue": 1, "success": 1}


async def test_terminal_error_of_a_thread_is_terminal(world: World) -> None:
    def body(reconciler, request):
        if reconciler.runs == 1:
            raise TerminalError("never")

    controller = await world.start(Threaded(body), resource=Widget)
    controller.enqueue(KEY)
    await until(lambda: controller.statistics().reconciles == 1)
    assert controller.statistics().terminal_errors == 1
    assert not controller.queue.keys()


async def test_thread_past_its_timeout_keeps_its_key_until_it_has_ended(world: World) -> None:
    release, told = threading.Event(), threading.Event()
    side_by_side = []
    inside = set()

    def body(reconciler, request):
        side_by_side.append(request in inside)
        inside.add(request)
        if reconciler.runs == 1:
            until_told(reconciler, told)
            release.wait(30)
        inside.discard(request)

    reconciler = Threaded(body)
    controller = await world.start(reconciler, resource=Widget, timeout=0.01, workers=2)
    controller.enqueue(KEY)
    await until(told.is_set)
    controller.enqueue(KEY)
    for _ in range(50):
        await asyncio.sleep(0)  # the other worker has done all it could
    assert reconciler.runs == 1
    assert controller.queue.in_progress(KEY) is not None
    release.set()
    await until(lambda: controller.statistics().reconciles >= 2)
    assert not any(side_by_side)
    assert controller.statistics().timeouts >= 1


async def test_thread_past_its_timeout_is_told_at_its_next_wait(world: World) -> None:
    def body(reconciler, request):
        if reconciler.runs == 1:
            reconciler.wait(asyncio.sleep(3600))

    reconciler = Threaded(body)
    controller = await world.start(reconciler, resource=Widget, timeout=0.01)
    controller.enqueue(KEY)
    await until(lambda: controller.statistics().timeouts >= 1)
    assert isinstance(reconciler.errors[0], ReconcileCancelled)


async def test_stop_joins_threads(world: World) -> None:
    entered, told, release, ended = (threading.Event() for _ in range(4))

    def body(reconciler, request):
        entered.set()
        until_told(reconciler, told)
        release.wait(30)
        ended.set()

    controller = await world.start(Threaded(body), resource=Widget)
    controller.enqueue(KEY)
    await until(entered.is_set)
    stopping = asyncio.create_task(controller.stop(grace=0))
    await until(told.is_set)
    assert not stopping.done()
    release.set()
    await stopping
    assert ended.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("widget-reconcile")]


async def test_second_cancellation_of_stop_abandons_a_hung_thread(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    entered, told, release = (threading.Event() for _ in range(3))

    def body(reconciler, request):
        entered.set()
        until_told(reconciler, told)
        release.wait(30)

    controller = await world.start(Threaded(body), resource=Widget)
    controller.enqueue(KEY)
    await until(entered.is_set)
    [thread] = [thread for thread in threading.enumerate() if thread.name.startswith("widget-reconcile")]
    assert thread.daemon
    stopping = asyncio.create_task(controller.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await until(told.is_set)
    assert not stopping.done()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert "gave up waiting for the threads of the reconciles of ns/w" in caplog.text
    await until(lambda: controller.queue.in_progress(KEY) is None)
    release.set()
    thread.join()


async def test_threads_are_reused(world: World) -> None:
    reconciler = Threaded(lambda reconciler, request: None)
    controller = await world.start(reconciler, resource=Widget, workers=4)
    for number in range(1, 6):
        controller.enqueue(KEY)
        await until(lambda number=number: controller.statistics().reconciles == number)
    assert len(reconciler.threads) == 1


async def test_stop_iteration_of_a_thread_is_an_error(world: World) -> None:
    def body(reconciler, request):
        if reconciler.runs == 1:
            next(iter(()))

    controller = await world.start(Threaded(body), resource=Widget)
    controller.enqueue(KEY)
    await until(lambda: controller.statistics().reconciles == 2)
    assert controller.statistics().results == {"error": 1, "success": 1}


async def test_stop_makes_waiting_threads_stop(world: World) -> None:
    waiting = threading.Event()

    def body(reconciler, request):
        async def long():
            waiting.set()
            await asyncio.sleep(3600)

        reconciler.wait(long())

    reconciler = Threaded(body)
    controller = await world.start(reconciler, resource=Widget)
    controller.enqueue(KEY)
    await until(waiting.is_set)
    await controller.stop(grace=0)
    assert isinstance(reconciler.errors[0], ReconcileCancelled)
    assert controller.statistics().cancelled == 1


async def test_a_coroutine_at_the_end_of_the_loop_is_not_reported_as_never_awaited(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """`asyncio.run` cancels the remaining tasks, also one that has not made its first step."""
    loop, test = asyncio.get_running_loop(), asyncio.current_task()
    bridge = ThreadBridge(loop)

    async def never() -> None:
        raise AssertionError("it began")

    def body() -> None:
        with pytest.raises(concurrent.futures.CancelledError):
            bridge.wait(never())

    thread = loop.run_in_executor(None, body)
    while not bridge._waits:  # the loop is blocked on purpose: it must not reach the coroutine
        threading.Event().wait(0.001)
    loop.call_soon(lambda: [task.cancel() for task in asyncio.all_tasks() if task is not test])
    await thread
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


async def test_plain_reconcile_object_and_finalize_run_in_threads(world: World) -> None:
    threads = []

    class Plain(ResourceReconciler[Widget]):
        def reconcile_object(self, obj, status):
            threads.append(threading.get_ident())
            status.set(phase="Ready")
            self.wait(asyncio.sleep(0))

        def finalize(self, obj, status):
            threads.append(threading.get_ident())

    controller = await world.start(Plain())
    await world.widget()
    await until(lambda: controller.statistics().reconciles == 1)
    stored = await world.read()
    assert (stored.status.phase, stored.metadata.finalizers) == ("Ready", ["example.com/widget"])
    await world.foreign.delete(Widget, "w", "ns")
    await until(lambda: controller.statistics().echo.known == 0 and controller.statistics().reconciles >= 2)
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_status_written_from_a_thread_does_not_wake(world: World) -> None:
    def body(reconciler, request):
        async def write():
            if request == FENCE:
                return
            obj = await reconciler.client.get(Widget, *request)
            async with StatusBatcher(reconciler.client, obj) as status:
                status.set(phase="Ready")

        reconciler.wait(write())

    reconciler = Threaded(body)
    controller = await world.start(reconciler, resource=Widget)
    await world.widget()
    await until(lambda: controller.statistics().reconciles == 1)
    informer = world.cache.informers[0]
    await until(lambda: b"Ready" in informer.store.get(KEY).data)  # the event has come
    controller.enqueue(FENCE)
    await until(lambda: controller.statistics().reconciles >= 2)
    assert reconciler.keys == [KEY, FENCE]


@pytest.fixture
async def world():
    async with APIServer(seed=7) as server:
        await server.apply(Widget)
        await server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})
        made = World(server)
        try:
            yield made
        finally:
            await made.stop()


@pytest.mark.virtual_time
async def test_virtual_time_passes_while_a_thread_waits_and_not_while_it_works(world: World) -> None:
    times = []

    def body(reconciler, request):
        loop = asyncio.get_running_loop
        for _ in range(3):
            hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)  # longer than the loop needs to jump
            reconciler.wait(asyncio.sleep(20))

            async def now() -> float:
                return loop().time()

            times.append(reconciler.wait(now()))
        return Result(requeue_after=1000)

    reconciler = Threaded(body)
    controller = await world.start(reconciler, resource=Widget, timeout=61)
    started = asyncio.get_running_loop().time()
    controller.enqueue(KEY)
    await asyncio.sleep(1500)
    assert controller.statistics().timeouts == 0
    assert [time - started for time in times] == [20, 40, 60, 1080, 1100, 1120]
