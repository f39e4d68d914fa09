"""Bytes between files, pipes and stores, over the store in memory."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest
import trio

from s3mount.cli import transfer
from s3mount.cli.output import no_progress
from s3mount.model import Content, Hole, Key, MiB, ObjectInfo, Staged
from s3mount.store.api import Arrived, Commit, ObjectStore
from s3mount.store.memory import LIKE_S3, MemoryStore

K = Key("a/b")


class Count:
    """A progress bar that only adds up."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, done: int, total: int | None = None, /) -> None:
        self.done += done


def some_bytes(length: int) -> bytes:
    return random.Random(length).randbytes(length)


async def content(store: ObjectStore, key: Key = K) -> bytes:
    pin = await store.pin(key)
    try:
        stream = io.BytesIO()
        await transfer.write_out(pin, stream, no_progress)
        return stream.getvalue()
    finally:
        await pin.aclose()


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


@pytest.fixture(params=["everything", "like S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    staging = tmp_path / "staging"
    staging.mkdir()
    return MemoryStore(staging=staging) if request.param == "everything" else MemoryStore(LIKE_S3)


@pytest.mark.parametrize("length", [0, 1, transfer.PUT_BYTES, transfer.PUT_BYTES + 1, 3 * MiB + 7])
async def test_a_file_arrives_whole_and_is_counted(store: ObjectStore, tmp_path: Path, length: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(length))
    count = Count()
    info = await transfer.upload_file(store, K, source, transfer.new_commit("text/plain"), count)
    assert (info.size, info.content_type, count.done) == (length, "text/plain", length)
    assert await content(store) == some_bytes(length)
    assert source.read_bytes() == some_bytes(length), "the store takes over the staged copy, never the user's file"


@pytest.mark.parametrize("length", [0, 5, transfer.PUT_BYTES, 2 * transfer.PUT_BYTES + 1])
async def test_a_pipe_arrives_whole(store: ObjectStore, length: int) -> None:
    count = Count()
    await transfer.upload_stream(store, K, io.BytesIO(some_bytes(length)), Commit(), count)
    assert await content(store) == some_bytes(length)
    assert count.done == length


async def test_a_download_is_the_object(store: ObjectStore, tmp_path: Path) -> None:
    await store.put(K, some_bytes(3 * MiB))
    target = tmp_path / "target"
    pin = await store.pin(K)
    await transfer.download(pin, target, no_progress)
    await pin.aclose()
    assert target.read_bytes() == some_bytes(3 * MiB)
    assert files_in(tmp_path) == ["target"]


async def test_a_download_that_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(OSError, match="gone"):
        await transfer.download(BrokenPin(), target, no_progress)
    assert target.read_bytes() == b"old"
    assert files_in(tmp_path) == ["target"]


class BrokenPin:
    """A version whose second half cannot be read."""

    info = ObjectInfo(K, 2 * transfer.READ_BYTES, None, 0)  # type: ignore[arg-type]

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        return False

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        return None

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        await trio.lowlevel.checkpoint()
        if offset:
            raise OSError("gone")

    async def aclose(self) -> None: ...


async def test_a_replaced_file_keeps_its_mode_and_a_link_stays_a_link(store: ObjectStore, tmp_path: Path) -> None:
    await store.put(K, b"new")
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    pin = await store.pin(K)
    await transfer.download(pin, link, no_progress)
    await pin.aclose()
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


async def test_a_device_is_written_to_and_not_replaced(store: ObjectStore, tmp_path: Path) -> None:
    await store.put(K, b"new")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    pin = await store.pin(K)
    await transfer.download(pin, fifo, no_progress)
    await pin.aclose()
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert fifo.is_fifo()


async def test_holes_stay_holes(store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.seek(64 * MiB)
        file.write(b"end")
    await transfer.upload_file(store, K, source, Commit(), no_progress)
    pin = await store.pin(K)
    await transfer.download(pin, target, no_progress)
    await pin.aclose()
    assert target.stat().st_size == 64 * MiB + 3
    assert target.stat().st_blocks * 512 < 4 * MiB
    with target.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"\0end"


def test_the_pieces_of_a_sparse_file_join(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for at in (0, 3 * MiB, 5 * MiB):
            file.seek(at)
            file.write(b"x" * 1000)
        file.truncate(9 * MiB)
    with path.open("rb") as file:
        pieces = tuple(transfer.pieces_of(file.fileno(), 9 * MiB))
    assert Content(9 * MiB, pieces).size == 9 * MiB
    assert (
        sum(piece.length for piece in pieces if isinstance(piece, Staged))
        + sum(piece.length for piece in pieces if isinstance(piece, Hole))
        == 9 * MiB
    )


async def test_an_object_of_another_store_keeps_its_metadata(store: ObjectStore) -> None:
    other = MemoryStore()
    await other.put(Key("from"), some_bytes(2 * MiB), Commit(metadata={"mode": "33188"}, content_type="text/x"))
    pin = await other.pin(Key("from"))
    info = await transfer.copy_between(pin, store, K, no_progress)
    await pin.aclose()
    assert await content(store) == some_bytes(2 * MiB)
    assert info.content_type == "text/x"
    assert (await store.head(K)).metadata is not None
    assert dict((await store.head(K)).metadata or {})["mode"] == "33188"


async def test_nothing_is_left_in_the_staging_folder(tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    store = MemoryStore(staging=staging)
    await transfer.upload_stream(store, K, io.BytesIO(some_bytes(2 * MiB)), Commit(), no_progress)
    assert list(staging.iterdir()) == []
