"""Prediction slots: bounded work, bounded waiting, and none of it for clients that are gone."""

import asyncio
import threading

import pytest

from maskloop_studio.errors import ClientGoneError, OverloadedError
from maskloop_studio.images.time_limit import TimeLimit
from maskloop_studio.serving.prediction_slots import PredictionSlots


async def _never():
    await asyncio.Event().wait()


async def _until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


class Work:
    """Holds its thread until it is let go or its limit ends."""

    def __init__(self):
        self.go_on = threading.Event()
        self.begun = []
        self.ended_early = []

    def __call__(self, limit):
        self.begun.append(limit)
        while not self.go_on.wait(0.005):
            if limit.is_over:
                self.ended_early.append(limit)
                break
        return "answer"


def _run(use, *, at_once=1, waiting=1):
    async def run():
        slots, work = PredictionSlots(at_once=at_once, waiting=waiting), Work()
        try:
            return await use(slots, work)
        finally:
            work.go_on.set()
            slots.close()

    return asyncio.run(run())


def _start(slots, work, *, disconnect=None, limit=None):
    running = slots.run(work, limit=limit or TimeLimit(), disconnect=disconnect or _never)
    return asyncio.create_task(running)


def test_run_beyond_the_bound_is_refused_at_once():
    async def use(slots, work):
        held, waits = _start(slots, work), _start(slots, work)
        await _until(lambda: work.begun and slots.accepted == 2)
        with pytest.raises(OverloadedError, match="2 requests"):
            await slots.run(work, limit=TimeLimit(), disconnect=_never)
        work.go_on.set()
        answers = await asyncio.gather(held, waits)
        return answers, slots.accepted

    assert _run(use) == (["answer", "answer"], 0)


def test_run_waits_for_a_slot():
    async def use(slots, work):
        tasks = [_start(slots, work) for _ in range(3)]
        await _until(lambda: len(work.begun) == 2)
        await asyncio.sleep(0.05)
        begun = len(work.begun)
        work.go_on.set()
        await asyncio.gather(*tasks)
        return begun, len(work.begun)

    assert _run(use, at_once=2, waiting=1) == (2, 3)


def test_client_gone_while_waiting_gives_its_place_back():
    async def use(slots, work):
        left = asyncio.Event()
        held = _start(slots, work)
        await _until(lambda: work.begun)
        waits = _start(slots, work, disconnect=left.wait)
        await _until(lambda: slots.accepted == 2)
        left.set()
        with pytest.raises(ClientGoneError, match="before a thread was free"):
            await waits
        accepted = slots.accepted
        work.go_on.set()
        return accepted, await held, len(work.begun)

    assert _run(use) == (1, "answer", 1)


def test_client_gone_while_working_ends_the_work_and_frees_the_slot():
    async def use(slots, work):
        left = asyncio.Event()
        works = _start(slots, work, disconnect=left.wait)
        await _until(lambda: work.begun)
        left.set()
        with pytest.raises(ClientGoneError, match="worked on"):
            await works
        ended = len(work.ended_early)
        work.go_on.set()
        return ended, await slots.run(work, limit=TimeLimit(), disconnect=_never)

    assert _run(use, waiting=0) == (1, "answer")


def test_work_that_raises_frees_the_slot():
    def fail(_limit):
        raise ValueError("a fault")

    async def use(slots, work):
        with pytest.raises(ValueError, match="a fault"):
            await slots.run(fail, limit=TimeLimit(), disconnect=_never)
        work.go_on.set()
        return await slots.run(work, limit=TimeLimit(), disconnect=_never)

    assert _run(use, waiting=0) == "answer"


def test_request_cancelled_by_the_server_ends_its_work():
    async def use(slots, work):
        task = _start(slots, work)
        await _until(lambda: work.begun)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(work.ended_early), slots.accepted

    assert _run(use) == (1, 0)
