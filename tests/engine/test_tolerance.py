"""Replay when a power cut took some records: what is left is a consistent store, whatever was taken."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence

import pytest

from s3mount.engine import check, schema
from s3mount.engine.engine import Engine
from s3mount.engine.log import Entry
from s3mount.engine.replay import apply_entry
from s3mount.engine.values import How, Versioning
from s3mount.errors import StoreError
from s3mount.model import Content, Hole, Kept, Key, Matches
from tests.engine.helpers import BUCKET, edited, key

NAMES = ["a", "b", "d/", "d/1", "d/2", "d/e/3", "f/1", "f/2", "g"]
PREFIXES = ["d/", "d/e/", "f/", "h/"]


class Life:
    """Random operations on one engine; what is refused is refused."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.some = random.Random(seed)
        self.steps: Sequence[Callable[[], object]] = (
            self.put,
            self.put,
            self.edit,
            self.edit,
            self.cut,
            lambda: engine.copy(BUCKET, self.name(), self.name(), durable=False),
            lambda: engine.update(BUCKET, self.name(), {"n": str(self.some.random())}, durable=False),
            lambda: engine.delete(BUCKET, self.name(), durable=False, lingers=True),
            lambda: engine.rename(BUCKET, self.name(), self.name(), durable=False),
            lambda: engine.link(BUCKET, self.name(), self.name(), durable=False),
            lambda: engine.rename_prefix(BUCKET, self.some.choice(PREFIXES), self.some.choice(PREFIXES), durable=False),
            lambda: engine.exchange(BUCKET, self.some.choice(NAMES), self.some.choice(NAMES), durable=False),
            self.multipart,
            self.remove_version,
        )

    def name(self) -> Key:
        return key(self.some.choice(NAMES))

    def data(self) -> bytes:
        return self.some.choice([b"", b"small", self.some.randbytes(50), self.some.randbytes(17_000)])

    def run(self, count: int) -> None:
        for _ in range(count):
            try:
                self.some.choice(self.steps)()
            except (StoreError, ValueError):
                pass

    def put(self) -> None:
        self.engine.put(BUCKET, self.name(), self.data(), durable=False)

    def edit(self) -> None:
        base = self.engine.head(BUCKET, self.name())
        how = How(condition=Matches(base.etag), file_id=base.file_id)
        content = edited(base, self.some.randrange(20_000), self.data() or b"x")
        self.engine.adopt(BUCKET, base.key, content, how, durable=False)

    def cut(self) -> None:
        base = self.engine.head(BUCKET, self.name())
        size = self.some.randrange(base.size + 10)
        kept = min(size, base.size)
        pieces = [piece for piece in (Kept(0, kept), Hole(kept, size - kept)) if piece.length]
        self.engine.adopt(BUCKET, base.key, Content(size, tuple(pieces), base), How(file_id=base.file_id), durable=False)

    def multipart(self) -> None:
        upload = self.engine.create_upload(BUCKET, self.name(), durable=False)
        parts = [self.engine.put_part(BUCKET, upload, number, self.data(), durable=False) for number in (1, 2)]
        parts.append(self.engine.copy_part(BUCKET, upload, 3, self.name(), durable=False))
        self.engine.complete_upload(BUCKET, upload, parts, durable=False)

    def remove_version(self) -> None:
        version = self.some.choice([*self.engine.versions(BUCKET), None])
        if version is not None and self.some.random() < 0.3:
            self.engine.delete_version(BUCKET, version.key, version.version_id, durable=False)


def replayed(entries: Sequence[Entry]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(db)
    for entry in entries:
        db.execute("BEGIN")
        apply_entry(db, entry)
        db.execute("COMMIT")
    return db


@pytest.mark.parametrize("versioning", ["off", "enabled", "suspended"])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_whatever_records_are_lost_the_rest_makes_a_consistent_store(engine: Engine, versioning: Versioning, seed: int) -> None:
    if versioning != "off":
        engine.set_versioning(BUCKET, "enabled")
    life = Life(engine, seed)
    life.run(100)
    if versioning == "suspended":
        engine.set_versioning(BUCKET, "suspended")
        life.run(100)
    assert engine.check() == []
    entries = [item for item in engine.log.walk(None) if isinstance(item, Entry)]
    some = random.Random(seed)
    for share in (0.0, 0.02, 0.1, 0.3, 0.6, 0.1, 0.3):
        kept = [entry for number, entry in enumerate(entries) if number == 0 or some.random() >= share]
        db = replayed(kept)
        assert [*check._against_itself(db), *check._extents_that_do_not_join(db)] == []
        db.close()


def test_an_edit_of_a_version_that_was_lost_does_nothing(engine: Engine) -> None:
    first = engine.put(BUCKET, key("a"), b"0123456789", durable=False)
    second = engine.put(BUCKET, key("a"), b"ABCDEFGHIJ", How(condition=Matches(first.etag)), durable=False)
    engine.adopt(BUCKET, key("a"), edited(second, 2, b"--"), How(file_id=second.file_id), durable=False)
    entries = [item for item in engine.log.walk(None) if isinstance(item, Entry)]
    db = replayed([*entries[:-2], entries[-1]])
    assert db.execute("SELECT etag, size FROM file").fetchall() == [(first.etag, 10)]
    assert db.execute("SELECT count(*) FROM extent").fetchone() == (1,)
    db.close()


def test_a_record_that_refers_to_a_lost_body_is_lost_as_a_whole(engine: Engine) -> None:
    data = random.Random(3).randbytes(20_000)
    engine.put(BUCKET, key("a"), data, durable=False)
    engine.put_many(BUCKET, [(key("b"), data, How()), (key("c"), b"other", How())], durable=False)
    entries = [item for item in engine.log.walk(None) if isinstance(item, Entry)]
    db = replayed([entries[0], entries[-1]])
    assert db.execute("SELECT count(*) FROM name").fetchone() == (0,)
    db.close()


def test_a_bucket_dropped_and_made_again_is_empty_and_usable_even_if_a_removal_was_lost(engine: Engine) -> None:
    engine.create_bucket("another")
    engine.put("another", key("a"), b"1")
    engine.delete("another", key("a"))
    engine.delete_bucket("another")
    engine.create_bucket("another")
    engine.put("another", key("b"), b"2")
    entries = [item for item in engine.log.walk(None) if isinstance(item, Entry)]
    db = replayed([*entries[:3], *entries[4:]])
    assert db.execute("SELECT key FROM name").fetchall() == [(b"b",)]
    db.close()
