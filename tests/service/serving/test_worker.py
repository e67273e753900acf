import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest

from sketch_search.model.errors import CostlyImage, SlowImage
from sketch_search.service.errors import ClientGone, QueueFull
from sketch_search.service.serving import worker as worker_module
from sketch_search.service.serving.worker import ALWAYS, Worker
from tests.service.busy_server import Gate, has_room, never, run, until


def test_clients_that_would_wait_too_long_are_refused_but_a_few_may_always_wait() -> None:
    async def scenario(seconds: float) -> int:
        worker, gate = Worker(queue=100, seconds=seconds), Gate()
        # It takes longer than nothing, which is all that the worker knows of how long jobs take.
        await run(worker, lambda quick: lambda: time.sleep(0.01), never())
        held = [asyncio.create_task(run(worker, lambda quick: gate, never()))]
        await until(gate.begun)
        while has_room(worker) and len(held) <= 3 * ALWAYS:
            held.append(asyncio.create_task(run(worker, lambda quick: lambda: "waited", never())))
            await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(*held)
        return len(held) - 1

    assert asyncio.run(scenario(seconds=1e-9)) == ALWAYS
    assert asyncio.run(scenario(seconds=1e9)) == 3 * ALWAYS


def test_a_client_that_hangs_up_leaves_when_its_running_job_ends() -> None:
    async def scenario() -> None:
        worker, gate, hung_up = Worker(queue=0), Gate(), asyncio.Event()

        async def leaves() -> None:
            await hung_up.wait()

        running = asyncio.create_task(run(worker, lambda quick: gate, leaves()))
        await until(gate.begun)
        hung_up.set()
        # The steps in which the event loop passes it on, before the thread is let go.
        for _ in range(10):
            await asyncio.sleep(0)
        assert not has_room(worker)
        assert not running.done()
        gate.opened.set()
        with pytest.raises(ClientGone):
            await running
        while not has_room(worker):
            await asyncio.sleep(0)
        assert await run(worker, lambda quick: lambda: "next", never()) == "next"

    asyncio.run(scenario())


def test_sketches_that_take_long_wait_for_each_other_and_nobody_waits_for_them() -> None:
    async def scenario() -> list[str]:
        worker, gate = Worker(queue=10), Gate()
        done: list[str] = []
        tried: list[bool] = []

        def slow(quick: bool) -> Callable[[], None]:
            tried.append(quick)
            if quick:
                raise SlowImage("takes long")
            gate()
            return partial(done.append, "slow")

        def ordinary(quick: bool) -> Callable[[], None]:
            assert quick
            return partial(done.append, "ordinary")

        def broken(quick: bool) -> Callable[[], None]:
            assert quick
            raise CostlyImage("too many parts")

        several = [asyncio.create_task(run(worker, slow, never())) for _ in range(worker_module.MAX_SLOW)]
        await until(gate.begun)
        while tried.count(True) < worker_module.MAX_SLOW:
            await asyncio.sleep(0)
        for _ in range(3):
            await run(worker, ordinary, never())
        # Those that would fill the queue and wait for a minute are sent away.
        for _ in range(2 * worker.queue):
            with pytest.raises(QueueFull, match="Try again in 10 s"):
                await run(worker, slow, never())
        # What is no picture is not tried again.
        with pytest.raises(CostlyImage):
            await run(worker, broken, never())
        gate.opened.set()
        await asyncio.gather(*several)
        await run(worker, slow, never())
        return done

    assert asyncio.run(scenario()) == ["ordinary"] * 3 + ["slow"] * (worker_module.MAX_SLOW + 1)
