"""A bucket as it was: listings, looks and reads of what versions keep, against what was noted at each moment."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.errors import AccessDenied, NotFound, PreconditionFailed
from s3mount.model import ByteRange, ETag, Key
from s3mount.store.api import Commit
from s3mount.store.aspects import told_by
from s3mount.store.local import LocalStore
from s3mount.store.past import Past
from tests.store.registry import read

B = "bucket"
KEYS = [Key(key) for key in ("a", "a-", "a/", "a/b", "a/b/c", "a0", "b/x", "b/y", "ü/1", "z")]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path / "data") as engine:
        engine.create_bucket(B)
        engine.set_versioning(B, "enabled")
        yield engine


def moment() -> int:
    """A time that is later than all that was done, and earlier than all that will be."""
    now = time.time_ns()
    while time.time_ns() == now:
        pass
    return now


async def listed(store: Past, prefix: str, delimiter: str, limit: int) -> list[str]:
    """All pages of a listing."""
    names: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await store.list(prefix, delimiter=delimiter, after=after, limit=limit)
        here = [info.key for info in page.objects] + list(page.prefixes)
        assert len(here) <= limit
        names += sorted(here, key=str.encode)
        after = page.next
    return names


def expected(state: dict[Key, bytes], prefix: str, delimiter: str) -> list[str]:
    names = set()
    for key in state:
        if key.startswith(prefix):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            names.add(key if at < 0 else key[: at + 1])
    return sorted(names, key=str.encode)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
async def test_every_moment_is_shown_as_it_was(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    state: dict[Key, bytes] = {}
    moments: list[tuple[int, dict[Key, bytes]]] = [(moment(), {})]
    for number in range(30):
        key, other, what = rng.choice(KEYS), rng.choice(KEYS), rng.random()
        if what < 0.25:
            engine.delete(B, key)
            state.pop(key, None)
        elif what < 0.5 and key in state and key != other:
            engine.rename(B, key, other)
            state[other] = state.pop(key)
        elif what < 0.6 and key in state and other in state and key != other and not {key[-1], other[-1]} & {"/"}:
            engine.exchange(B, key, other)
            state[key], state[other] = state[other], state[key]
        else:
            state[key] = b"%d" % number
            engine.put(B, key, state[key])
        moments.append((moment(), dict(state)))
    for at_ns, then in rng.sample(moments, 6):
        store = Past(LocalStore(engine, B), at_ns)
        for prefix in ("", "a", "a/", "b/", "ü/", "none"):
            for delimiter in ("", "/"):
                assert await listed(store, prefix, delimiter, rng.choice([1, 2, 1000])) == expected(then, prefix, delimiter)
        for key in KEYS:
            if key in then:
                assert await read(store, key) == then[key]
                assert (await store.head(key)).size == len(then[key])
            else:
                with pytest.raises(NotFound):
                    await store.head(key)
            found = await store.find(key.rstrip("/"))
            assert (found.object is not None) == (key.rstrip("/") in then)
            assert found.implied == any(other.startswith(f"{key.rstrip('/')}/") and not other.endswith("/") for other in then)


async def test_a_renamed_file_is_under_its_old_name_until_then_and_under_the_new_one_since(engine: Engine) -> None:
    engine.put(B, Key("old/a"), b"first")
    engine.put(B, Key("b"), b"second")
    before = Past(LocalStore(engine, B), moment())
    engine.rename_prefix(B, "old/", "new/")
    engine.rename(B, Key("new/a"), Key("b"))
    between = Past(LocalStore(engine, B), moment())
    engine.put(B, Key("b"), b"third")
    engine.delete(B, Key("b"))
    assert await listed(before, "", "", 1000) == ["b", "old/a"]
    assert await listed(between, "", "", 1000) == ["b"]
    assert (await read(before, Key("b")), await read(between, Key("b"))) == (b"second", b"first")


async def test_the_past_cannot_be_changed(engine: Engine) -> None:
    engine.put(B, Key("a"), b"data")
    store = Past(LocalStore(engine, B), moment())
    with pytest.raises(AccessDenied):
        await store.put(Key("a"), b"other")
    with pytest.raises(AccessDenied):
        await store.delete(Key("a"))
    assert engine.head(B, Key("a")).size == 4


async def test_an_object_says_what_it_was_and_not_what_it_is(engine: Engine) -> None:
    """It said the ETag, the version and the tags of what stands there now, and nothing of what is deleted by now."""
    present, keys = LocalStore(engine, B), (Key("replaced"), Key("deleted"))
    for key in keys:
        made = await present.put(key, b"old", Commit(content_type="text/old"))
        await present.set_aspect(key, "tags", "age=old", if_match=made.etag)
    store = Past(present, moment())
    made = await present.put(keys[0], b"newer", Commit(content_type="text/new"))
    await present.set_aspect(keys[0], "tags", "age=new", if_match=made.etag)
    await present.delete(keys[1])
    for key in keys:
        then = await store.head(key)
        for name in ("etag", "size", "version-id", "content-type", "storage-class"):
            assert await store.aspect(key, name) == told_by(then, name)
        assert await store.aspect(key, "tags") == "age=old"
        assert await store.aspect(key, "url") == f"local://{B}/{key}"
    with pytest.raises(NotFound):
        await store.aspect(Key("never"), "etag")


async def test_a_pin_is_of_the_version_that_was_listed(engine: Engine) -> None:
    engine.put(B, Key("a"), b"old")
    store = Past(LocalStore(engine, B), moment())
    engine.put(B, Key("a"), b"newer")
    (info,) = (await store.list()).objects
    pin = await store.pin(Key("a"), known=info)
    buffer = bytearray(3)
    await pin.get_into(0, memoryview(buffer))
    assert bytes(buffer) == b"old"
    assert pin.info.etag == info.etag
    await pin.aclose()
    with pytest.raises(PreconditionFailed):
        await store.get_into(Key("a"), ByteRange(0, 3), memoryview(buffer), if_match=ETag("other"))
