"""One inode's bytes over a store in memory, rich and poor, against a bytearray."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from s3mount.errors import NoSpace, Stale, TooLarge
from s3mount.fs.content import WHOLE_BYTES, FileContent
from s3mount.model import OBJECT_BYTES, Content, Key, KiB, MiB, ObjectInfo
from s3mount.store.api import COMMIT_ID, EVERYTHING, Capabilities, Commit
from s3mount.store.memory import LIKE_S3, MemoryStore
from tests.fs.content_kit import FILE_ID, KEY, Rig, bytes_of, resize, rewrite

POOR = Capabilities(conditional_put=False)
LARGE = 3 * WHOLE_BYTES
STORES = {"everything": EVERYTHING, "like S3": LIKE_S3, "no conditions": POOR}


@pytest.fixture(params=list(STORES))
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    return Rig(MemoryStore(STORES[request.param]), tmp_path)


# -- reading and writing --------------------------------------------------------------------


async def test_a_new_file_is_changed_and_untouched_until_something_is_written(rig: Rig) -> None:
    content = rig.content()
    assert (content.size, content.changed, content.untouched, content.base) == (0, True, True, None)
    await content.write(0, b"x")
    assert (content.size, content.changed, content.untouched) == (1, True, False)
    await rig.leave(content)


async def test_an_opened_object_is_unchanged_and_reads_as_it_is(rig: Rig) -> None:
    content = await rig.stored(b"hello world")
    assert (content.size, content.changed, content.untouched) == (11, False, False)
    assert bytes(await content.read(6, 100)) == b"world"
    assert bytes(await content.read(11, 10)) == b""
    assert bytes(await content.read(50, 10)) == b""
    await rig.leave(content)


async def test_a_read_crosses_kept_staged_and_missing_bytes(rig: Rig) -> None:
    content = await rig.stored(b"a" * 10)
    await content.write(4, b"BB")
    await content.write(14, memoryview(b"CC"))
    assert await bytes_of(content) == b"aaaaBBaaaa\0\0\0\0CC"
    assert bytes(await content.read(5, 10)) == b"Baaaa\0\0\0\0C"
    await rig.leave(content)


async def test_a_write_of_nothing_changes_nothing(rig: Rig) -> None:
    content = await rig.stored(b"abc")
    await content.write(100, b"")
    assert (content.size, content.changed) == (3, False)
    await rig.leave(content)


async def test_what_was_cut_off_reads_as_zeros_after_growing_again(rig: Rig) -> None:
    content = await rig.stored(b"secret secret")
    await content.truncate(3)
    await content.truncate(8)
    assert await bytes_of(content) == b"sec\0\0\0\0\0"
    await content.write(3, b"ond part")
    await content.truncate(5)
    await content.truncate(7)
    await content.commit(rig.target)
    assert await rig.object() == b"secon\0\0"
    await rig.leave(content)


async def test_truncating_to_the_same_size_changes_nothing(rig: Rig) -> None:
    content = await rig.stored(b"abc")
    await content.truncate(3)
    assert not content.changed
    await rig.leave(content)


async def test_more_than_an_object_can_hold_is_refused(rig: Rig) -> None:
    content = await rig.stored(b"abc")
    with pytest.raises(TooLarge):
        await content.write(OBJECT_BYTES, b"x")
    with pytest.raises(TooLarge):
        await content.truncate(OBJECT_BYTES + 1)
    assert (content.size, content.changed) == (3, False)
    await rig.leave(content)


async def test_a_buffer_is_used_again_by_the_next_read(rig: Rig) -> None:
    content = await rig.stored(b"ab")
    first = await content.read(0, 1)
    second = await content.read(1, 1)
    assert isinstance(first, memoryview)
    assert isinstance(second, memoryview)
    assert bytes(first) == bytes(second) == b"b"
    await rig.leave(content)


async def test_bytes_at_hand_are_read_without_a_checkpoint() -> None:
    store = MemoryStore()
    rig = Rig(store)
    content = FileContent(store, rig.area, rig.content()._layers._buffers, base=await store.put(KEY, b"k" * 100))
    await content.open()
    await content.write(10, b"staged")
    reading = content.read(0, 200)
    with pytest.raises(StopIteration) as done:
        reading.send(None)
    assert bytes(done.value.value)[:20] == b"kkkkkkkkkkstagedkkkk"
    await rig.leave(content)


# -- committing -----------------------------------------------------------------------------


async def test_a_commit_makes_the_content_the_object_and_the_base(rig: Rig) -> None:
    content = rig.content()
    await content.write(0, b"new")
    info = await content.commit(rig.target)
    assert (content.base, content.committed, content.changed, content.error) == (info, info, False, None)
    assert (info.key, info.size) == (KEY, 3)
    assert await rig.object() == await bytes_of(content) == b"new"
    await rig.leave(content)


async def test_a_commit_without_a_change_asks_nobody(rig: Rig) -> None:
    content = await rig.stored(b"old")
    rig.key = Key("somewhere/else")
    assert await content.commit(rig.target) == content.base
    await rig.leave(content)


async def test_an_empty_new_file_can_be_committed(rig: Rig) -> None:
    content = rig.content()
    assert (await content.commit(rig.target)).size == 0
    assert not content.changed
    await content.write(2, b"x")
    await content.commit(rig.target)
    assert await rig.object() == b"\0\0x"
    await rig.leave(content)


async def test_each_commit_has_an_id_of_its_own(rig: Rig) -> None:
    content, seen = rig.content(), set()
    for at in range(3):
        await content.write(at, b"x")
        await content.commit(rig.target)
        metadata = (await rig.memory.head(KEY)).metadata
        assert metadata is not None
        seen.add(metadata[COMMIT_ID])
    assert len(seen) == 3
    await rig.leave(content)


@pytest.mark.parametrize(("store", "size"), [(EVERYTHING, 100), (EVERYTHING, LARGE), (LIKE_S3, 100), (LIKE_S3, LARGE), (POOR, LARGE)])
async def test_an_edit_of_a_replaced_object_is_stale_and_does_not_undo_it(tmp_path: Path, store: Capabilities, size: int) -> None:
    rig = Rig(MemoryStore(store), tmp_path)
    content = await rig.stored(b"a" * size)
    await content.write(0, b"mine")
    theirs = await rig.another_client_puts(b"theirs" * size)
    for _ in range(2):
        with pytest.raises(Stale):
            await content.commit(rig.target)
        assert isinstance(content.error, Stale)
        assert content.changed
    assert (await rig.memory.head(KEY)).etag == theirs.etag
    assert bytes(await content.read(0, 4)) == b"mine"
    await rig.leave(content)


async def test_a_full_overwrite_of_a_replaced_object_wins(rig: Rig) -> None:
    content = await rig.stored(b"old")
    await content.truncate(0)
    assert (content.untouched, content.base, content.size) == (True, None, 0)
    await content.write(0, b"mine")
    await rig.another_client_puts(b"theirs")
    await content.commit(rig.target)
    assert await rig.object() == b"mine"
    await content.write(4, b"!")
    await rig.another_client_puts(b"theirs again")
    if rig.memory.capabilities is not POOR:
        with pytest.raises(Stale):
            await content.commit(rig.target)
    await rig.leave(content)


async def test_an_empty_file_opened_for_overwriting_wins_too(rig: Rig) -> None:
    content = await rig.stored(b"")
    await content.truncate(0)
    await content.write(0, b"mine")
    await rig.another_client_puts(b"theirs")
    await content.commit(rig.target)
    assert await rig.object() == b"mine"
    await rig.leave(content)


async def test_a_large_content_is_committed_piece_by_piece(rig: Rig) -> None:
    model = bytearray(random.Random(1).randbytes(2 * MiB))
    content = await rig.stored(bytes(model))
    for offset, data in ((100, b"edit"), (3 * MiB, b"far behind"), (MiB, b"x" * 300 * KiB)):
        await rewrite(content, model, offset, data)
    await content.commit(rig.target)
    content.check()
    assert await rig.object() == await bytes_of(content) == bytes(model)
    await rewrite(content, model, 5, b"again")
    await content.commit(rig.target)
    assert await rig.object() == await bytes_of(content) == bytes(model)
    await rig.leave(content)


async def test_what_is_kept_is_sent_as_kept_and_no_byte_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Content] = []
    rig = Rig(MemoryStore(), tmp_path)
    adopt = rig.memory.adopt

    async def watched(key: Key, content: Content, commit: Commit) -> ObjectInfo:
        sent.append(content)
        return await adopt(key, content, commit)

    monkeypatch.setattr(rig.memory, "adopt", watched)
    content = await rig.stored(b"a" * MiB)
    for at in (300, 5000):
        await content.write(at, b"b" * 100)
        await content.commit(rig.target)
    staged = [[piece for piece in each.pieces if hasattr(piece, "source")] for each in sent]
    assert [[(piece.offset, piece.length) for piece in pieces] for pieces in staged] == [[(300, 100)], [(5000, 100)]]
    await rig.leave(content)


async def test_a_large_staged_file_is_handed_over_and_read_on(tmp_path: Path) -> None:
    rig = Rig(MemoryStore(), tmp_path)
    content = rig.content()
    await content.write(0, b"z" * MiB)
    assert len(os.listdir(tmp_path)) == 1
    await content.commit(rig.target)
    assert not os.listdir(tmp_path)
    assert await bytes_of(content) == b"z" * MiB
    await rig.leave(content)


async def test_a_commit_after_a_rename_goes_to_the_new_key(rig: Rig) -> None:
    content = await rig.stored(b"old")
    await content.write(0, b"new")
    rig.key = Key("dir/renamed")
    if rig.memory.capabilities.atomic_rename:
        await rig.memory.rename(KEY, rig.key)
    else:
        await rig.memory.delete(KEY)
        info = await rig.memory.put(rig.key, b"old")
        assert content.base is not None
        await content.rebase(info, former=content.base.etag)
    content.moved(rig.key)
    await content.commit(rig.target)
    assert await rig.object() == b"new"
    assert content.base is not None
    assert content.base.key == rig.key
    await rig.leave(content)


async def test_new_metadata_do_not_make_the_open_file_stale(rig: Rig) -> None:
    content = await rig.stored(b"a" * 500)
    former = content.base
    assert former is not None
    await rig.memory.delete(KEY)
    await content.rebase(await rig.memory.put(KEY, b"a" * 500, Commit(file_id=FILE_ID)), former=former.etag)
    assert await bytes_of(content) == b"a" * 500
    await content.write(0, b"b")
    await content.commit(rig.target)
    assert await rig.object() == b"b" + b"a" * 499
    await rig.leave(content)


async def test_news_of_metadata_that_come_after_a_commit_are_ignored(rig: Rig) -> None:
    content = await rig.stored(b"a" * 500)
    former = content.base
    assert former is not None
    await content.truncate(10)
    info = await content.commit(rig.target)
    await content.rebase(former, former=former.etag)
    content.check()
    assert content.base == content.committed == info
    await rig.leave(content)


# -- replaced and removed -------------------------------------------------------------------


async def opened_and_read(content: FileContent) -> memoryview | bytes:
    await content.open()
    return await content.read(0, 3)


async def test_a_replaced_object_is_stale_when_it_is_opened_or_first_read(rig: Rig) -> None:
    info = await rig.memory.put(KEY, b"old")
    await rig.another_client_puts(b"new")
    content = rig.content(info)
    with pytest.raises(Stale):
        await opened_and_read(content)
    await content.aclose()


async def test_a_replaced_object_is_read_on_where_versions_are_kept_and_stale_elsewhere(rig: Rig) -> None:
    content = await rig.stored(b"old" * 100)
    await rig.another_client_puts(b"new" * 100)
    if rig.memory.capabilities.versions:
        assert await bytes_of(content) == b"old" * 100
    else:
        with pytest.raises(Stale):
            await bytes_of(content)
    await rig.leave(content)


async def test_a_removed_open_file_goes_on_up_to_the_limit(rig: Rig) -> None:
    content = await rig.stored(b"abcdef")
    await content.write(1, b"X")
    await content.localise(4)
    content.check()
    await rig.memory.delete(KEY)
    assert bytes(await content.read(0, 5)) == b"aXcde"
    await content.write(2, b"YZ")
    assert bytes(await content.read(0, 5)) == b"aXYZe"
    if rig.memory.capabilities.versions:
        assert await bytes_of(content) == b"aXYZef"
    else:
        with pytest.raises(Stale):
            await bytes_of(content)
    await rig.leave(content)


async def test_localising_is_no_edit(rig: Rig) -> None:
    content = await rig.stored(b"abc" * MiB)
    await content.localise(64 * MiB)
    assert not content.changed
    assert await bytes_of(content) == b"abc" * MiB
    await rig.leave(content)


# -- against a bytearray --------------------------------------------------------------------


async def one_step(rng: random.Random, rig: Rig, content: FileContent, model: bytearray, reach: int) -> FileContent:
    match rng.choice(["write"] * 4 + ["read"] * 4 + ["cut", "grow", "commit", "commit", "reopen"] + ["empty"] * (rng.random() < 0.1)):
        case "write":
            offset, data = rng.randrange(len(model) + reach), rng.randbytes(rng.choice([1, 100, 4096, rng.randrange(1, reach)]))
            await rewrite(content, model, offset, data)
        case "read":
            offset, size = rng.randrange(len(model) + 10), rng.randrange(1, 2 * reach)
            assert bytes(await content.read(offset, size)) == bytes(model[offset : offset + size])
        case "cut":
            resize(model, rng.randrange(len(model) + 1))
            await content.truncate(len(model))
        case "grow":
            resize(model, len(model) + rng.randrange(reach))
            await content.truncate(len(model))
        case "empty":
            model.clear()
            await content.truncate(0)
        case "commit":
            assert (await content.commit(rig.target)).size == len(model)
        case "reopen":
            info = await content.commit(rig.target)
            await rig.leave(content)
            content = rig.content(info)
            await content.open()
    return content


@pytest.mark.parametrize("reach", [3000, 60_000, 400_000])
@pytest.mark.parametrize("seed", range(4))
async def test_any_operations_leave_what_a_bytearray_would_hold(rig: Rig, seed: int, reach: int) -> None:
    rng, content, model = random.Random(f"{seed} {reach}"), rig.content(), bytearray()
    for _ in range(80):
        content = await one_step(rng, rig, content, model, reach)
        content.check()
        assert content.size == len(model)
    await content.commit(rig.target)
    assert await rig.object() == await bytes_of(content) == bytes(model)
    await rig.leave(content)


async def test_a_full_disk_refuses_the_write_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(MemoryStore(), tmp_path)
    content = await rig.stored(b"a" * MiB)
    await content.write(0, b"b" * 100 * KiB)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("s3mount.fs.staging.os.pwrite", full)
        with pytest.raises(NoSpace, match=r"staging folder .* is full"):
            await content.write(50 * KiB, b"c" * MiB)
    content.check()
    assert await bytes_of(content) == b"b" * 100 * KiB + b"a" * (MiB - 100 * KiB)
    await content.write(50 * KiB, b"c" * MiB)
    await content.commit(rig.target)
    assert await rig.object() == b"b" * 50 * KiB + b"c" * MiB
    await rig.leave(content)


async def test_a_content_that_lacks_written_bytes_is_never_committed_until_they_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells once of what it could not hand over, and takes its pages for clean: the second fsync said that all is well."""
    rig = Rig(MemoryStore(), tmp_path)
    content = await rig.stored(b"old" * 100_000)
    await content.truncate(0)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("s3mount.fs.staging.os.pwrite", full)
        with pytest.raises(NoSpace):
            await content.write(0, b"n" * MiB)
    for _ in range(2):
        with pytest.raises(NoSpace, match="1048576 bytes are lost"):
            await content.commit(rig.target)
    assert content.incomplete
    assert await rig.object() == b"old" * 100_000
    await content.write(0, b"n" * (MiB // 2))
    with pytest.raises(NoSpace):
        await content.commit(rig.target)
    await content.write(MiB // 2, b"n" * (MiB // 2))
    await content.commit(rig.target)
    assert await rig.object() == b"n" * MiB
    await rig.leave(content)
