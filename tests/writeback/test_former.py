"""A journal that the former version left: read, kept in, taken over, sent."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from s3mount.errors import NotFound
from s3mount.model import Key
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.writeback.base import connected, is_former, upgrade
from s3mount.writeback.journal import Journal, Leave
from s3mount.writeback.records import Stored
from s3mount.writeback.store import WriteBack
from tests.store.registry import InMemory, keys_of, pattern, read
from tests.writeback.former import Former
from tests.writeback.test_store import clock

__all__ = ["clock"]  # a fixture

BIG = pattern(200_000)


@pytest.fixture
def former(tmp_path: Path) -> Former:
    """Two files of one body, one of two others, one that is large, one that is empty."""
    former = Former(tmp_path / "j")
    former.enter("a", "1", '[[0,3,"one",0]]', 3, ["one"], {"one": b"abc"})
    former.enter("b", "2", '[[0,2,"one",1]]', 2, ["one"], {})
    former.enter("c", "3", '[[0,2,"two",0],[2,3,"three",0]]', 5, ["two", "three"], {"two": b"de", "three": b"fgh"})
    (tmp_path / "big").write_bytes(BIG)
    former.enter("d", "4", f'[[0,{len(BIG)},"four",0]]', len(BIG), ["four"], {"four": tmp_path / "big"})
    former.enter("e", "5", "[]", 0, [], {})
    return former


async def test_a_journal_of_the_former_version_is_sent_whole(former: Former, tmp_path: Path, clock: MockClock) -> None:
    bucket = MemoryStore(LIKE_S3)
    store = await WriteBack.open(bucket, tmp_path / "j")
    await store.sync()
    await store.aclose()
    assert await keys_of(bucket) == ["a", "b", "c", "d", "e"]
    assert [await read(bucket, Key(key)) for key in "abcde"] == [b"abc", b"bc", b"defgh", BIG, b""]
    with Journal.open(tmp_path / "j") as journal:
        assert journal.records() == []
        assert list((journal.folder / "bodies").iterdir()) == []
        journal.check()


def test_what_two_records_of_the_former_version_share_goes_with_the_second(former: Former, tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        journal.check()
        journal.apply([Leave((1,))])
        journal.check()
        assert journal.inline("one") == b"abc"
        journal.apply([Leave((2,))])
        with pytest.raises(NotFound):
            journal.inline("one")


def test_a_visitor_keeps_as_an_owner_of_the_former_version_expects_it(former: Former, tmp_path: Path) -> None:
    with Journal.visit(tmp_path / "j") as visitor:
        assert [record.key for record in visitor.records()] == ["a", "b", "c", "d", "e"]
        number = visitor.keep(Key("k"), 3, [Stored(0, 3, "kept", 0)], {"kept": InMemory(b"xyz")}, reason="No.", error="AccessDenied")
    assert (number, "kept") in former.uses()
    with Journal.open(tmp_path / "j") as journal:
        journal.check()
        assert journal.inline("kept") == b"xyz"


class Mortal:
    """A connection of a process that dies at its *last* statement."""

    def __init__(self, base: sqlite3.Connection, last: int) -> None:
        self._base = base
        self._left = last
        self.in_transaction = False

    def execute(self, statement: str) -> Any:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return self._base.execute(statement)


def test_whoever_dies_while_he_takes_it_over_leaves_it_as_it_was_or_taken_over(former: Former, tmp_path: Path) -> None:
    left = []
    for last in range(9):
        base = connected(tmp_path / "j")
        try:
            upgrade(Mortal(base, last))  # type: ignore[arg-type]
        except KeyboardInterrupt:
            pass
        base.close()
        base = connected(tmp_path / "j")
        left.append(is_former(base))
        base.close()
    assert left == [True] * 8 + [False]
    with Journal.open(tmp_path / "j") as journal:
        journal.check()
        assert len(journal.records()) == 5
