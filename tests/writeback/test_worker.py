"""The journal's thread: what is done there comes back, one piece after another, and to whom it belongs."""

import gc
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from s3mount.writeback.worker import Worker


async def the_thread(worker: Worker) -> threading.Thread:
    return await worker.call(threading.current_thread)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_the_work_returns_and_raises_comes_back() -> None:
    worker = Worker()
    assert await worker.call(lambda: 5) == 5
    with pytest.raises(ValueError, match="no"):
        await worker.call(lambda: int("no"))
    assert await the_thread(worker) is await the_thread(worker) is not threading.current_thread()
    worker.close()


async def test_pieces_of_work_are_done_in_the_order_of_their_calls() -> None:
    worker, done = Worker(), list[int]()
    first_goes_on = threading.Event()

    def work(number: int) -> None:
        if not number:
            first_goes_on.wait()
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(worker.call, lambda number=number: work(number))
            await trio.testing.wait_all_tasks_blocked()
        assert done == []
        first_goes_on.set()
    assert done == [0, 1, 2, 3, 4]
    worker.close()


async def test_who_is_cancelled_learns_what_came_of_his_work_all_the_same() -> None:
    worker, goes_on, answers = Worker(), threading.Event(), list[bool]()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await worker.call(goes_on.wait))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        goes_on.set()
    assert answers == [True]
    worker.close()


async def test_a_bell_that_was_rung_for_somebody_else_is_not_taken_for_an_answer() -> None:
    worker = Worker()
    await the_thread(worker)
    os.eventfd_write(worker._bell, 1)
    assert await worker.call(lambda: "mine") == "mine"
    assert await worker.call(lambda: "and mine") == "and mine"
    worker.close()


async def test_the_thread_ends_when_it_is_told_and_another_one_begins_when_it_is_needed() -> None:
    worker = Worker()
    thread = await the_thread(worker)
    worker.close()
    worker.close()
    await trio.to_thread.run_sync(thread.join)
    another = await the_thread(worker)
    assert another is not thread
    assert another.is_alive()
    worker.close()


async def test_the_thread_ends_with_its_worker() -> None:
    worker = Worker()
    thread = await the_thread(worker)
    del worker
    gc.collect()
    await trio.to_thread.run_sync(thread.join)


async def test_where_there_is_no_descriptor_left_the_caller_is_told_and_may_ask_again() -> None:
    worker = Worker()
    with no_more_descriptors(), pytest.raises(RuntimeError, match="no thread"):
        await the_thread(worker)
    assert (await the_thread(worker)).is_alive()
    worker.close()
