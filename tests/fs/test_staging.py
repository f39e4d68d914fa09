"""Logs of staged bytes: in memory, in files, on a full disk; and the buffers for reads."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from blake3 import blake3

from s3mount.errors import NoSpace, Unavailable
from s3mount.fs.buffers import BUFFER_BYTES, BufferPool, fill_zeros
from s3mount.fs.staging import MEMORY_BYTES, PATIENCE_S, THREAD_BYTES, UNLINK_BYTES, StagingArea, StagingFile
from s3mount.model import KiB, MiB
from s3mount.store.memory import MemoryStore
from tests.fs.content_kit import Rig, bytes_of


@pytest.fixture(params=["named", "anonymous", "slow"])
def area(request: pytest.FixtureRequest, tmp_path: Path) -> StagingArea:
    """ "slow": large writes go through threads."""
    return StagingArea(None if request.param == "anonymous" else tmp_path, patience_s=0 if request.param == "slow" else PATIENCE_S)


def all_of(file: StagingFile) -> bytes:
    data = bytearray(file.length)
    file.read_into(0, memoryview(data))
    return bytes(data)


async def append(file: StagingFile, data: bytes) -> None:
    await file.write([(file.length, memoryview(data))])


async def test_a_small_log_stays_in_memory_and_a_large_one_moves_to_a_file(area: StagingArea) -> None:
    file = area.create()
    await append(file, b"a" * MEMORY_BYTES)
    assert (file.path, area.memory, file.length) == (None, MEMORY_BYTES, MEMORY_BYTES)
    await append(file, b"b")
    assert (area.memory, file.length) == (0, MEMORY_BYTES + 1)
    assert (file.path is None) == (area.folder is None)
    assert all_of(file) == b"a" * MEMORY_BYTES + b"b"
    await file.retire()


async def test_beyond_the_budget_small_logs_go_to_files_too(tmp_path: Path) -> None:
    area = StagingArea(tmp_path, memory_budget=1000)
    first, second = area.create(), area.create()
    await append(first, b"a" * 900)
    await append(second, b"b" * 200)
    assert (first.path, area.memory) == (None, 900)
    assert second.path is not None
    await append(first, b"a" * 200)
    assert (first.path is not None, area.memory) == (True, 0)
    for file in (first, second):
        await file.retire()
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("size", [100, THREAD_BYTES])
async def test_bytes_are_written_over_and_behind_each_other(area: StagingArea, size: int) -> None:
    file = area.create()
    await append(file, b"a" * 3 * size)
    await file.write([(size, memoryview(b"b" * size)), (3 * size, memoryview(b"c" * size))])
    assert all_of(file) == b"a" * size + b"b" * size + b"a" * size + b"c" * size
    buffer = bytearray(size)
    if not file.read_into_nowait(size, memoryview(buffer)):  # not every file system can tell without waiting
        await file.read(size, memoryview(buffer))
    assert bytes(buffer) == b"b" * size
    await file.read(3 * size, memoryview(buffer))
    assert bytes(buffer) == b"c" * size
    await file.retire()


async def frozen(file: StagingFile) -> StagingFile:
    file.freeze()
    await file.wait_written()
    return file


@pytest.mark.parametrize("size", [1000, 100 * KiB, THREAD_BYTES, MiB])
@pytest.mark.parametrize("patience_s", [0, PATIENCE_S])
async def test_a_named_log_knows_the_hash_of_what_was_written_behind_each_other(tmp_path: Path, size: int, patience_s: float) -> None:
    file = StagingArea(tmp_path, patience_s=patience_s).create()
    async with trio.open_nursery() as nursery:
        for number in range(200 * KiB // size + 15):  # no more than may be ahead of a thread that is slow
            nursery.start_soon(append, file, bytes([number % 251]) * size)
    assert file.digest is None, "it may grow"
    await frozen(file)
    assert file.digest == blake3(all_of(file)).digest()
    await file.retire()


async def test_a_log_that_was_written_over_or_has_no_name_knows_no_hash(area: StagingArea) -> None:
    file, anonymous = area.create(), StagingArea(None).create()
    await append(file, b"a" * MiB)
    await file.write([(MiB - 1, memoryview(b"bb"))])
    await append(anonymous, b"a" * MiB)
    for each in (file, anonymous):
        assert (await frozen(each)).digest is None
        await each.retire()


async def test_the_hash_is_of_what_was_written_even_if_the_buffer_is_used_again(tmp_path: Path) -> None:
    file, buffer = StagingArea(tmp_path).create(), bytearray(b"a" * MiB)
    await file.write([(0, memoryview(buffer))])
    buffer[:] = b"b" * MiB
    await file.write([(MiB, memoryview(buffer))])
    assert (await frozen(file)).digest == blake3(b"a" * MiB + b"b" * MiB).digest()
    await file.retire()


async def test_reading_behind_the_end_is_an_error(area: StagingArea) -> None:
    for size in (10, MiB):
        file = area.create()
        await append(file, b"a" * size)
        with pytest.raises(EOFError):
            file.read_into(size - 5, memoryview(bytearray(10)))
        await file.retire()


async def test_a_retired_log_goes_with_its_last_reader(tmp_path: Path) -> None:
    area = StagingArea(tmp_path)
    file = area.create()
    await append(file, b"a" * MiB)
    with file.held(), file.held():
        await file.retire()
        assert file.retired
        assert all_of(file) == b"a" * MiB
        assert os.listdir(tmp_path)
    assert not os.listdir(tmp_path)
    await file.retire()


async def test_a_file_that_the_store_took_is_left_to_it(tmp_path: Path) -> None:
    area = StagingArea(tmp_path)
    file = area.create()
    await append(file, b"a" * MiB)
    assert file.path is not None
    taken = file.path.rename(tmp_path / "taken")
    (tmp_path / "x.staged").write_bytes(b"somebody else's")
    assert file.path is None
    assert all_of(file) == b"a" * MiB
    await file.retire()
    assert taken.read_bytes() == b"a" * MiB
    assert sorted(os.listdir(tmp_path)) == ["taken", "x.staged"]


async def test_a_name_that_is_another_file_by_now_is_not_removed(tmp_path: Path) -> None:
    area = StagingArea(tmp_path)
    file = area.create()
    await append(file, b"a" * MiB)
    path = file.path
    assert path is not None
    path.unlink()
    path.write_bytes(b"somebody else's")
    assert file.path is None
    await file.retire()
    assert path.read_bytes() == b"somebody else's"


async def test_a_large_file_is_removed_too(tmp_path: Path) -> None:
    area = StagingArea(tmp_path)
    file = area.create()
    await append(file, b"a" * (UNLINK_BYTES + 1))
    await file.retire()
    assert not os.listdir(tmp_path)


async def test_the_descriptor_is_closed_once(area: StagingArea) -> None:
    before = set(os.listdir("/proc/self/fd"))
    file = area.create()
    await append(file, b"a" * MiB)
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    await file.retire()
    await file.retire()
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_folder_that_is_gone_is_said_so(tmp_path: Path) -> None:
    file = StagingArea(tmp_path / "missing").create()
    await append(file, b"a" * 10)
    with pytest.raises(Unavailable, match=r"staging folder .*missing cannot be used"):
        await append(file, b"a" * MiB)
    assert all_of(file) == b"a" * 10
    await file.retire()


async def test_a_log_that_could_not_move_goes_on_in_memory(area: StagingArea, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    file = area.create()
    await append(file, b"a" * 10)
    monkeypatch.setattr("s3mount.fs.staging.os.pwrite", full)
    with pytest.raises(NoSpace) as refused:
        await append(file, b"a" * MiB)
    await append(file, b"b" * 10)
    assert "full" in str(refused.value)
    assert all_of(file) == b"a" * 10 + b"b" * 10
    assert area.memory == 20
    await file.retire()


# -- a slow disk ----------------------------------------------------------------------------


async def test_once_the_disk_makes_a_large_write_wait_the_next_one_goes_through_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, pwrite, seconds = [], os.pwrite, iter([0.0, PATIENCE_S, 100.0, 100.0, 200.0, 200.0])

    def noting(fd: int, data: memoryview, position: int) -> int:
        threads.append(threading.current_thread() is not threading.main_thread())
        return pwrite(fd, data, position)

    file = StagingArea(tmp_path).create()
    monkeypatch.setattr("s3mount.fs.staging.os.pwrite", noting)
    monkeypatch.setattr("s3mount.fs.staging.time.perf_counter", lambda: next(seconds))
    for _ in range(3):
        await append(file, b"a" * MiB)
    monkeypatch.undo()
    assert threads[-3:] == [False, True, False]
    await file.retire()


# -- a full disk ----------------------------------------------------------------------------


@pytest.fixture
def file_limit() -> Iterator[int]:
    """No file of this process may grow beyond 1 MiB: pwrite comes short, then fails, as on a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MiB, former[1]))
    yield MiB
    resource.setrlimit(resource.RLIMIT_FSIZE, former)


@pytest.mark.parametrize("step", [10 * KiB, THREAD_BYTES])
async def test_a_file_that_may_not_grow_refuses_the_write_and_keeps_what_it_has(area: StagingArea, file_limit: int, step: int) -> None:
    file, model = area.create(), b""
    while len(model) + step < file_limit:
        data = bytes([len(model) % 251]) * (step + 1)
        await append(file, data)
        model += data
    with pytest.raises(NoSpace):
        await append(file, bytes(step + 1))
    assert file.length == len(model) < file_limit
    assert all_of(file) == model
    with pytest.raises(NoSpace):
        await file.write([(0, memoryview(b"x")), (file.length, memoryview(bytes(2 * step)))])
    assert all_of(file) == model, "what grows the log is written first"
    await file.write([(0, memoryview(b"xy"))])
    file.freeze()
    await file.wait_written()
    assert all_of(file) == b"xy" + model[2:]
    if file.path is not None:
        assert file.path.stat().st_size == len(model), "no ragged end is left for the store"
    await file.retire()


async def test_a_content_on_a_full_disk_can_still_be_committed(tmp_path: Path, file_limit: int) -> None:
    rig = Rig(MemoryStore(), tmp_path)
    content = await rig.stored(b"k" * 200 * KiB)
    written = 1000 * KiB
    for offset in range(0, written, 100 * KiB):
        await content.write(offset, b"w" * 100 * KiB)
    with pytest.raises(NoSpace):
        await content.write(written, b"w" * 100 * KiB)
    content.check()
    assert await bytes_of(content) == b"w" * written
    await content.truncate(written)  # whoever wrote does without the rest
    await content.commit(rig.target)
    assert await rig.object() == b"w" * written
    await content.write(0, b"x" * 100 * KiB)
    await content.commit(rig.target)
    assert (await rig.object())[: 200 * KiB] == b"x" * 100 * KiB + b"w" * 100 * KiB
    await rig.leave(content)


class FullOnce:
    """A pwrite that finds the disk full until `make_room` was called; *in_vain*: after it as well."""

    def __init__(self, *, in_vain: bool = False) -> None:
        self.full = True
        self.asked = 0
        self._in_vain = in_vain
        self._pwrite = os.pwrite

    def pwrite(self, fd: int, data: memoryview, position: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._pwrite(fd, data, position)

    async def make_room(self) -> None:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        self.full = self._in_vain


async def test_a_write_to_a_full_folder_is_tried_again_once_room_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullOnce()
    monkeypatch.setattr("s3mount.fs.staging.os.pwrite", disk.pwrite)
    file = StagingArea(tmp_path, make_room=disk.make_room).create()
    await append(file, b"a" * MiB)
    disk.full = True
    await append(file, b"b" * MiB)
    assert disk.asked == 2
    assert all_of(file) == b"a" * MiB + b"b" * MiB
    file.freeze()
    await file.wait_written()
    assert file.digest == blake3(all_of(file)).digest()
    await file.retire()


async def test_a_write_fails_where_no_room_could_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullOnce(in_vain=True)
    monkeypatch.setattr("s3mount.fs.staging.os.pwrite", disk.pwrite)
    file = StagingArea(tmp_path, make_room=disk.make_room).create()
    with pytest.raises(NoSpace):
        await append(file, b"a" * MiB)
    assert (disk.asked, file.length) == (1, 0)
    await file.retire()


async def test_a_freeze_waits_for_a_write_that_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullOnce()
    monkeypatch.setattr("s3mount.fs.staging.os.pwrite", disk.pwrite)
    file = StagingArea(tmp_path, make_room=disk.make_room).create()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(append, file, b"a" * MiB)
        while not disk.asked:
            await trio.lowlevel.checkpoint()
        file.freeze()
        await file.wait_written()
        assert all_of(file) == b"a" * MiB
    await file.retire()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]])
async def test_writes_that_fail_at_once_leave_no_gap_whatever_their_order(
    tmp_path: Path, order: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StagingArea(tmp_path, patience_s=0).create()
    await append(file, b"a" * MiB)
    turns = [trio.Event() for _ in order]

    def fail(_: StagingFile, parts: list[tuple[int, memoryview]]) -> None:
        trio.from_thread.run(turns[(parts[0][0] - MiB) // THREAD_BYTES].wait)
        raise OSError(28, "No space left on device")

    async def grow() -> None:
        with pytest.raises(NoSpace):
            await append(file, b"b" * THREAD_BYTES)

    monkeypatch.setattr(StagingFile, "_write_now", fail)
    async with trio.open_nursery() as nursery:
        for _ in order:
            nursery.start_soon(grow)
            await trio.testing.wait_all_tasks_blocked()
        for number in order:
            turns[number].set()
            await trio.testing.wait_all_tasks_blocked()
    assert file.length == MiB
    monkeypatch.undo()
    await append(file, b"c")
    assert all_of(file) == b"a" * MiB + b"c"
    await file.retire()


# -- buffers --------------------------------------------------------------------------------


def test_the_buffer_used_last_is_used_next_and_few_are_kept() -> None:
    pool = BufferPool(size=10, kept=2)
    taken = [pool.take(size) for size in (1, 10, 5)]
    assert all(len(buffer) == 10 for buffer in taken)
    for buffer in taken:
        pool.give(buffer)
    assert pool.take(3) is taken[1]
    assert pool.take(3) is taken[0]
    assert pool.take(3) is not taken[2]


def test_a_larger_read_gets_a_buffer_of_its_own() -> None:
    pool = BufferPool(size=10)
    large = pool.take(11)
    assert len(large) == 11
    pool.give(large)
    assert len(pool.take(1)) == 10


def test_zeros_of_any_length() -> None:
    data = bytearray(b"x" * (2 * BUFFER_BYTES + 5))
    fill_zeros(memoryview(data)[1:-1])
    assert (data[0], data[-1], any(data[1:-1])) == (ord("x"), ord("x"), False)
