import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from anyio import from_thread
from anyio.to_thread import run_sync

from sketch_search.model.errors import CostlyImage, SlowImage
from sketch_search.model.limits import pause
from sketch_search.service.errors import ClientGone, QueueFull
from sketch_search.service.serving.worker import ALWAYS, OWNER, SLOW, Turns, Worker, cancelled_by, from_this_thread
from tests.programs import PATIENCE, wait_for
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


def test_a_client_that_hangs_up_makes_room_and_the_next_waits_for_its_running_job() -> None:
    async def scenario() -> None:
        worker, gate, hung_up = Worker(queue=0), Gate(), asyncio.Event()

        async def leaves() -> None:
            await hung_up.wait()

        running = asyncio.create_task(run(worker, lambda quick: gate, leaves()))
        await until(gate.begun)
        hung_up.set()
        while not has_room(worker):
            await asyncio.sleep(0)
        assert (worker.held, running.done()) == (0, False)
        following = asyncio.create_task(run(worker, lambda quick: lambda: "next", never()))
        while not worker.turns.waiting:
            await asyncio.sleep(0)
        gate.opened.set()
        with pytest.raises(ClientGone):
            await running
        assert await following == "next"

    asyncio.run(scenario())


def test_a_job_whose_task_is_cancelled_as_a_server_that_stops_does_ends_where_it_pauses() -> None:
    async def scenario() -> None:
        worker, begun, ended = Worker(queue=0), threading.Event(), threading.Event()

        def endless() -> None:
            try:
                while True:
                    pause()
                    begun.set()
            finally:
                ended.set()

        running = asyncio.create_task(worker.compute("a", endless))
        await until(begun)
        running.cancel()
        await until(ended)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_sketches_that_take_long_wait_for_each_other_and_no_other_client_waits_for_them() -> None:
    # One of them is prepared, and half of those that may wait are one client's.
    most = 1 + SLOW.waiting // 2

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

        several = [asyncio.create_task(run(worker, slow, never())) for _ in range(most)]
        await until(gate.begun)
        while worker.slow.waiting < most - 1:
            await asyncio.sleep(0)
        for _ in range(3):
            await run(worker, ordinary, never(), "another client")
        # Those that would fill the queue and wait for a minute are sent away.
        for _ in range(2 * worker.queue):
            with pytest.raises(QueueFull, match="Try again in 10 s"):
                await run(worker, slow, never())
        with pytest.raises(CostlyImage):
            await run(worker, broken, never(), "another client")
        gate.opened.set()
        await asyncio.gather(*several)
        await run(worker, slow, never())
        return done

    assert asyncio.run(scenario()) == ["ordinary"] * 3 + ["slow"] * (most + 1)


def test_who_has_searched_before_does_not_wait_for_the_first_sketches_of_others() -> None:
    async def scenario() -> None:
        worker, gate = Worker(queue=10), Gate()
        await run(worker, lambda quick: lambda: "first", never(), "known")
        new = [asyncio.create_task(run(worker, lambda quick: partial(str, gate()), never(), f"{n}")) for n in range(5)]
        await until(gate.begun)
        assert await run(worker, lambda quick: lambda: "answered", never(), "known") == "answered"
        assert not any(task.done() for task in new)
        gate.opened.set()
        await asyncio.gather(*new)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_client_with_quick_sketches_does_not_wait_for_those_of_several_with_slow_ones() -> None:
    async def scenario() -> None:
        worker, gate = Worker(queue=10), Gate()
        await run(worker, lambda quick: str, never(), "c")
        worker._was_slow.update(a=True, b=True)

        def slow(quick: bool) -> Callable[[], str]:
            gate()
            return str

        slow_ones = [asyncio.create_task(run(worker, slow, never(), client)) for client in ("a", "b")]
        await until(gate.begun)
        for _ in range(3):
            assert await run(worker, lambda quick: partial(str, quick), never(), "c") == "True"
        gate.opened.set()
        await asyncio.gather(*slow_ones)

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


class Crowd:
    """Jobs of several clients in the same turns; each runs until it is let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.running = turns, list[str]()
        self._gates = dict[str, asyncio.Event]()
        self._tasks = dict[str, asyncio.Task[None]]()

    async def come(self, *names: str) -> None:
        """A name begins with its client's."""
        for name in names:
            self._gates[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._job(name))
            await self._rest()

    async def _job(self, name: str) -> None:
        async with self.turns.turn(OWNER if name[0] == "o" else name[0]):
            self.running.append(name)
            try:
                await self._gates[name].wait()
            finally:
                self.running.remove(name)

    def refused(self) -> set[str]:
        return {name for name, task in self._tasks.items() if task.done() and isinstance(task.exception(), QueueFull)}

    async def end(self, name: str) -> None:
        self._gates[name].set()
        await self._tasks[name]
        await self._rest()

    async def _rest(self) -> None:
        """The steps in which the event loop hands a turn on."""
        for _ in range(5):
            await asyncio.sleep(0)


def played(scenario: Callable[[Crowd], Coroutine[Any, Any, None]], turns: Callable[[], Turns]) -> None:
    async def play() -> None:
        await scenario(Crowd(turns()))

    asyncio.run(play())


def test_clients_take_turns_however_many_jobs_each_has() -> None:
    async def scenario(crowd: Crowd) -> None:
        await crowd.come("a1", "a2", "a3", "b1", "c1", "b2")
        order = []
        while crowd.running:
            (name,) = crowd.running
            order.append(name)
            await crowd.end(name)
        assert order == ["a1", "a2", "b1", "c1", "a3", "b2"]

    played(scenario, lambda: Turns(1))


def test_a_client_of_which_nothing_waits_is_let_in_instead_of_the_newest_of_those_that_fill_the_queue() -> None:
    async def scenario(crowd: Crowd) -> None:
        await crowd.come("a1", "a2", "a3", "a4", "b1", "b2")
        assert crowd.refused() == {"a4"}
        await crowd.come("c1", "c2", "b3")
        assert (crowd.refused(), crowd.turns.waiting) == ({"a4", "a3", "c2", "b3"}, 4)
        await crowd.come("d1", "e1")
        assert (crowd.refused(), crowd.turns.waiting) == ({"a4", "a3", "c2", "b3", "b2", "e1"}, 4)
        order = []
        while crowd.running:
            order.append(crowd.running[0])
            await crowd.end(order[-1])
        assert order == ["a1", "a2", "b1", "c1", "d1"]

    played(scenario, lambda: Turns(1, 1, 4))


def test_the_owners_jobs_run_beside_those_of_others_and_wait_only_for_his_own() -> None:
    async def scenario(crowd: Crowd) -> None:
        await crowd.come("a1", "a2", "b1", "b2", "c1", "o1", "o2", "o3")
        assert (crowd.running, crowd.refused(), crowd.turns.waiting) == (["a1", "o1"], set(), 6)
        await crowd.end("o1")
        assert crowd.running == ["a1", "o2"]
        await crowd.end("a1")
        assert crowd.running == ["o2", "a2"]

    played(scenario, lambda: Turns(1, 1, 4))


def test_the_next_sketch_of_a_client_does_not_wait_for_its_slow_one_while_nobody_else_waits() -> None:
    async def scenario() -> None:
        worker, gate = Worker(queue=10), Gate()

        def slow(quick: bool) -> Callable[[], str]:
            if quick:
                raise SlowImage("takes long")
            gate()
            return partial(str, "slow")

        for _ in range(2):
            first = asyncio.create_task(run(worker, slow, never()))
            await until(gate.begun)
            assert await run(worker, lambda quick: partial(str, quick), never()) == "True"
            assert not first.done()
            gate.opened.set()
            await first
            gate = Gate()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_step_that_comes_just_after_its_client_has_gone_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    # The client goes between the look whether it is there and the beginning of the step.
    looks = iter([lambda: None])
    look = from_thread.check_cancelled
    monkeypatch.setattr(from_thread, "check_cancelled", lambda: next(looks, look)())

    async def scenario() -> None:
        turns, gate, is_gone = Turns(1), Gate(), threading.Event()

        def work() -> None:
            gate.begun.set()
            wait_for(is_gone, "the client has not gone")
            from_this_thread(turns.compute, "a", lambda: None)

        async def leaves() -> None:
            await until(gate.begun)
            # After the scope is cancelled, and has cancelled the tasks that it has.
            asyncio.get_running_loop().call_later(0.05, is_gone.set)

        with pytest.raises(ClientGone):
            async with cancelled_by(leaves()):
                await run_sync(work)
        assert turns.running == 0

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
