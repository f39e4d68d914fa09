"""A new index is swapped in while everybody goes on, and shows the same as the old one."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3mount.engine.engine import Engine
from s3mount.engine.reindex import ASIDE, Reindexer
from s3mount.errors import Busy
from s3mount.model import Key
from tests.engine.helpers import BUCKET, key
from tests.engine.observe import observe


def fill(engine: Engine) -> None:
    engine.create_bucket("versions")
    engine.set_versioning("versions", "enabled")
    for number in range(30):
        engine.put(BUCKET, Key(f"k{number % 10}"), b"%d" % number * 500, durable=False)
        engine.put("versions", Key(f"v{number % 3}"), b"%d" % number, durable=False)
    engine.put(BUCKET, key("large"), b"large" * 8000)
    engine.put_part(BUCKET, engine.create_upload(BUCKET, key("upload")), 1, b"part")


def spoil(engine: Engine) -> None:
    """Make the index lie: a name is gone of which the log knows."""
    with engine.lock, engine.index.write() as db:
        db.execute("DELETE FROM name WHERE key = ?", (b"k1",))


def test_the_new_index_shows_what_the_log_says(engine: Engine) -> None:
    fill(engine)
    before, versions = observe(engine), list(engine.versions("versions"))
    spoil(engine)
    assert observe(engine) != before
    engine.rebuild_index()
    assert observe(engine) == before
    assert list(engine.versions("versions")) == versions


def test_it_begins_at_a_snapshot_where_there_is_one(engine: Engine) -> None:
    fill(engine)
    engine.compact()
    engine.put(BUCKET, key("later"), b"later")
    before = observe(engine)
    spoil(engine)
    engine.rebuild_index()
    assert observe(engine) == before


def test_what_is_written_meanwhile_is_in_the_new_index(engine: Engine) -> None:
    fill(engine)
    Reindexer(engine._parts()).reindex(lambda: engine.put(BUCKET, key("meanwhile"), b"here"))
    assert engine.head(BUCKET, key("meanwhile")).size == 4


def test_another_engine_on_the_folder_sees_the_swap_and_goes_on(engine: Engine) -> None:
    fill(engine)
    with Engine.open(engine.folder) as other:
        spoil(engine)
        assert other.find(BUCKET, key("k1")).object is None
        engine.rebuild_index()
        assert other.find(BUCKET, key("k1")).object is not None
        other.put(BUCKET, key("by the other"), b"x")
    assert engine.find(BUCKET, key("by the other")).object is not None


def test_two_at_once_in_one_process_are_refused(engine: Engine) -> None:
    path: Path = engine.staging / ASIDE
    path.touch()
    with pytest.raises(Busy):
        engine.rebuild_index()
    path.unlink()


def test_nothing_is_left_aside(engine: Engine) -> None:
    fill(engine)
    engine.rebuild_index()
    assert not [path for path in engine.staging.iterdir() if path.name.startswith(ASIDE)]
