"""Jobs share a model, wait in a bounded queue, and free their slots when they end early."""

import asyncio
import threading
import time

import pytest

from litgpt_core.core.errors import CheckpointError
from litgpt_core.generation.engine import Engine
from litgpt_core.generation.request import GenerationRequest
from litgpt_core.serving.job import Job, Stopped, TimedOut
from litgpt_core.serving.models import slots_that_fit
from litgpt_core.serving.worker import Busy, Worker


def request(i: int = 0, *, tokens: int = 10) -> GenerationRequest:
    return GenerationRequest(prompt_ids=(65 + i, 66), max_new_tokens=tokens, seed=i, stop_ids=())


def job(i: int = 0, *, tokens: int = 10, seconds: float = 60.0) -> Job:
    return Job(request=request(i, tokens=tokens), deadline=time.monotonic() + seconds)


@pytest.fixture
def engine(make_model):
    return Engine.from_directory(make_model("m"), device="cpu", dtype="32")


@pytest.fixture
def worker(engine):
    made = []

    def _worker(**words):
        made.append(Worker(engine, **({"slots": 3, "queue": 20, "name": "m"} | words)))
        return made[-1]

    yield _worker
    for each in made:
        each.close(drain_s=5)
    assert not [thread for thread in threading.enumerate() if thread.name == "worker m"]


class Gate:
    """Blocks a worker's steps until it is opened, so that a test controls the timing."""

    def __init__(self, monkeypatch) -> None:
        from litgpt_core.generation.continuous_batch import ContinuousBatch

        self.open, self.steps = threading.Event(), 0
        step = ContinuousBatch.step

        def held(batch):
            self.open.wait(10)
            self.steps += 1
            return step(batch)

        monkeypatch.setattr(ContinuousBatch, "step", held)


def test_more_jobs_than_slots_all_finish(engine, worker):
    alone = ["".join(delta.text for delta in engine.stream(request(i))) for i in range(9)]
    shared = worker()

    async def run():
        jobs = [job(i) for i in range(9)]
        for each in jobs:
            shared.submit(each)
        return [delta.text for delta in await asyncio.gather(*(each.result() for each in jobs))]

    assert asyncio.run(run()) == alone
    assert len(set(alone)) == 9 and shared.idle


def test_the_queue_is_bounded_and_suggests_when_to_retry(worker, monkeypatch):
    gate = Gate(monkeypatch)
    shared = worker(slots=2, queue=1)

    async def run():
        jobs = [job(i) for i in range(3)]
        for each in jobs:
            shared.submit(each)
        with pytest.raises(Busy) as caught:
            shared.submit(job(9))
        assert 1 <= caught.value.retry_after_s <= 60
        gate.open.set()
        await asyncio.gather(*(each.result() for each in jobs))
        shared.submit(last := job(9))
        assert (await last.result()).finish_reason == "length"

    asyncio.run(run())


def test_a_reader_that_leaves_frees_the_slot(worker, monkeypatch):
    gate = Gate(monkeypatch)
    gate.open.set()
    shared = worker(slots=1)

    async def run():
        first = job(1, tokens=1000)
        shared.submit(first)
        async for _ in first.deltas():
            break  # the reader goes; its generator is closed when the loop has turned
        first.cancel()
        shared.submit(second := job(2))
        assert (await second.result()).finish_reason == "length"
        assert first.new_tokens < 1000

    asyncio.run(run())
    assert shared.idle


def test_running_and_waiting_jobs_time_out(worker, monkeypatch):
    gate = Gate(monkeypatch)
    shared = worker(slots=1)

    async def run():
        jobs = [job(0, tokens=1000, seconds=0.2), job(1, seconds=0.2), job(2)]
        for each in jobs:
            shared.submit(each)
        await asyncio.sleep(0.4)
        gate.open.set()
        for each in jobs[:2]:
            with pytest.raises(TimedOut, match="ended after"):
                await each.result()
        assert (await jobs[2].result()).finish_reason == "length"

    asyncio.run(run())


def test_an_error_of_the_batch_ends_its_jobs_and_not_the_worker(worker, monkeypatch):
    from litgpt_core.generation.continuous_batch import ContinuousBatch

    shared, step, calls = worker(), ContinuousBatch.step, []

    def broken(batch):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError("poison")
        return step(batch)

    monkeypatch.setattr(ContinuousBatch, "step", broken)

    async def run():
        shared.submit(first := job(0))
        with pytest.raises(MemoryError):
            await first.result()
        shared.submit(second := job(1))
        assert (await second.result()).finish_reason == "length"

    asyncio.run(run())


def test_a_batch_that_cannot_be_opened_fails_the_waiting_jobs(worker, engine, monkeypatch):
    opened = []

    def full(**_):
        opened.append(1)
        raise MemoryError("no room for the cache")

    shared, real = worker(), engine.open_batch

    async def run():
        monkeypatch.setattr(engine, "open_batch", full)
        shared.submit(first := job(0))
        with pytest.raises(MemoryError):
            await first.result()
        await asyncio.sleep(0.2)
        assert len(opened) == 1, "it waits for work instead of trying again and again"
        monkeypatch.setattr(engine, "open_batch", real)
        shared.submit(second := job(1))
        assert (await second.result()).finish_reason == "length"

    asyncio.run(run())


def test_cancelled_waiting_jobs_free_their_place(worker, monkeypatch):
    gate = Gate(monkeypatch)
    shared = worker(slots=1, queue=2)

    async def run():
        jobs = [job(i) for i in range(3)]
        for each in jobs:
            shared.submit(each)
        for each in jobs[1:]:
            each.cancel()
        shared.submit(late := job(5))
        gate.open.set()
        assert (await late.result()).finish_reason == "length"

    asyncio.run(run())


def test_fewer_slots_where_the_caches_would_not_fit(engine, monkeypatch, caplog):
    assert slots_that_fit(engine, requested=8) == 8
    each = 2 * 2 * 32 * 96 * 4  # layers, keys and values, width, window, bytes
    free = type("Memory", (), {"available": 3 * 5 * each})()
    monkeypatch.setattr("litgpt_core.serving.models.psutil.virtual_memory", lambda: free)
    assert slots_that_fit(engine, requested=8) == 5
    assert "5 slots instead of 8" in caplog.text
    free.available = 0
    assert slots_that_fit(engine, requested=8) == 1


def test_an_invalid_prompt_fails_alone(worker):
    shared = worker()

    async def run():
        wrong = Job(request=GenerationRequest(prompt_ids=(10**6,), max_new_tokens=3), deadline=time.monotonic() + 60)
        shared.submit(good := job(1))
        shared.submit(wrong)
        with pytest.raises(CheckpointError, match="token 1000000"):
            await wrong.result()
        assert (await good.result()).finish_reason == "length"

    asyncio.run(run())


def test_closing_finishes_running_jobs_and_fails_the_rest(engine, monkeypatch):
    gate = Gate(monkeypatch)
    patient = Worker(engine, slots=1, queue=5, name="m")

    async def run():
        jobs = [job(0), job(1)]
        for each in jobs:
            patient.submit(each)
        gate.open.set()
        await asyncio.to_thread(patient.close, drain_s=10)
        assert [(await each.result()).finish_reason for each in jobs] == ["length", "length"]
        with pytest.raises(Stopped):
            patient.submit(job(3))
        gate.open.clear()
        hasty = Worker(engine, slots=1, queue=5, name="m")
        hasty.submit(late := job(4))
        closing = asyncio.ensure_future(asyncio.to_thread(hasty.close, drain_s=0.05))
        with pytest.raises(Stopped, match="shut down"):
            await late.result()
        gate.open.set()
        await closing

    asyncio.run(run())
    assert not [thread for thread in threading.enumerate() if thread.name == "worker m"]
