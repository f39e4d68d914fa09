"""The journal: what is in it after it was closed, killed, visited, and swept."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from s3mount.errors import Busy, Corrupt, NewerFormat, NotFound
from s3mount.model import Absent, ETag, Hole, Kept, Key, KiB, Matches, MiB, ObjectInfo
from s3mount.writeback.journal import Amend, Enter, Journal, Leave
from s3mount.writeback.records import Op, Record, State, Stored, compose, pieces_from_text, pieces_to_text
from tests.store.registry import InMemory, pattern

BASE = ObjectInfo(Key("k"), 100, ETag("e"), 7)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "j", about={"url": "s3://bucket"}) as journal:
        yield journal
        if journal.owned:
            journal.check()


def put(key: str, commit_id: str, body: str = "", size: int = 3) -> Record:
    pieces = (Stored(0, size, body, 0),) if body else ()
    return Record(key=Key(key), op=Op.PUT, commit_id=commit_id, size=size if body else 0, pieces=pieces, created_ns=5)


def test_what_was_entered_is_there_again_as_it_was(journal: Journal) -> None:
    record = Record(
        key=Key("a/ü"),
        op=Op.PUT,
        condition=Matches(ETag("x y")),
        commit_id="c1",
        size=20,
        pieces=(Stored(0, 3, "b", 0), Kept(3, 7), Hole(10, 10)),
        base=BASE,
        metadata={"mode": "33188", "name": "ü"},
        content_type="text/plain",
        storage_class="GLACIER",
        created_ns=1,
        updated_ns=2,
        attempts=3,
        reason="Because.",
        error="Unavailable",
    )
    (number,) = journal.apply([Enter(record, {"b": b"abc"})])
    folder = journal.folder
    journal.close()
    with Journal.open(folder) as again:
        (found,) = again.records()
        assert replace(found, base=None) == replace(record, id=number, base=None)
        assert found.base is not None
        assert (found.base.key, found.base.size, found.base.etag, found.base.mtime_ns) == ("k", 100, "e", 7)
        assert again.inline("b") == b"abc"
        assert again.about["url"] == "s3://bucket"


@pytest.mark.parametrize("condition", [None, Absent(), Matches(ETag("wb-1"))])
def test_conditions_are_kept(journal: Journal, condition: Absent | Matches | None) -> None:
    journal.apply([Enter(replace(put("k", "c"), condition=condition))])
    assert [record.condition for record in journal.records()] == [condition]


def test_a_body_goes_with_the_last_record_that_names_it(journal: Journal) -> None:
    data = pattern(300_000)
    length = journal.take("big", InMemory(data))
    assert length == 300_000
    one, two = journal.apply([Enter(put("a", "1", "big", 300_000), {"big": length}), Enter(put("b", "2", "big", 300_000))])
    journal.check()
    journal.apply([Leave((one,))])
    buffer = bytearray(10)
    journal.read_into("big", 299_990, memoryview(buffer))
    assert bytes(buffer) == data[-10:]
    journal.apply([Leave((two,))])
    assert not journal.path_of("big").exists()
    with pytest.raises(NotFound):
        journal.inline("big")


def test_a_replaced_record_goes_in_the_transaction_that_enters_its_successor(journal: Journal) -> None:
    (one,) = journal.apply([Enter(put("a", "1", "x"), {"x": b"old"})])
    journal.apply([Enter(put("a", "2", "y"), {"y": b"new"}, replaces=(one,))])
    assert [record.commit_id for record in journal.records()] == ["2"]
    journal.check()


def test_an_amended_record_gives_back_the_bodies_that_it_does_not_name_any_more(journal: Journal) -> None:
    (number,) = journal.apply([Enter(put("a", "1", "x"), {"x": b"old"})])
    journal.apply([Amend(replace(put("a", "1"), id=number, reason="No."))])
    assert [(record.size, record.reason) for record in journal.records()] == [(0, "No.")]


def test_only_one_process_owns_a_folder_and_others_may_visit_it(journal: Journal) -> None:
    with pytest.raises(Busy, match="Another process"):
        Journal.open(journal.folder)
    with Journal.visit(journal.folder) as visitor:
        journal.apply([Enter(put("a", "1"))])
        assert [record.key for record in visitor.records()] == ["a"]
        assert visitor.busy
        assert not visitor.owned
    folder = journal.folder
    journal.close()
    with Journal.visit(folder) as visitor:
        assert not visitor.busy


def test_there_is_nothing_to_visit_where_nobody_ever_wrote(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Journal.visit(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_could_not_be_committed_is_kept_by_a_visitor(tmp_path: Path) -> None:
    with Journal.visit(tmp_path / "j", create=True) as visitor:
        big, small = pattern(200_000, 1), b"small"
        pieces = (Stored(0, 200_000, "f1", 0), Stored(200_000, 5, "f2", 0), Kept(200_005, 10))
        base = replace(BASE, size=300_000)
        number = visitor.keep(
            Key("k"), 200_015, pieces, {"f1": InMemory(big), "f2": InMemory(small)}, reason="Refused.", error="AccessDenied", base=base
        )
        visitor.check()
    with Journal.open(tmp_path / "j") as journal:
        (record,) = journal.records()
        assert (record.id, record.state, record.reason, record.error) == (number, State.KEPT, "Refused.", "AccessDenied")
        assert journal.inline("f2") == small
        assert journal.path_of("f1").read_bytes() == big
        journal.check()


def test_whoever_keeps_something_waits_for_others_who_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: two mounts of a bucket that ended at once; while the one copied gigabytes, the other gave up, and its files were lost."""
    monkeypatch.setattr("s3mount.writeback.base.BUSY_S", 0.05)
    begun, go = threading.Event(), threading.Event()

    class Slow(InMemory):
        def read_into(self, position: int, buffer: memoryview) -> None:
            begun.set()
            assert go.wait(20)
            super().read_into(position, buffer)

    def keep(name: str, source: InMemory) -> int:
        with Journal.visit(tmp_path / "j", create=True) as visitor:
            return visitor.keep(Key(name), 300_000, [Stored(0, 300_000, name, 0)], {name: source}, reason="No.", error="AccessDenied")

    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(keep, "slow", Slow(pattern(300_000)))
        assert begun.wait(20)
        quick = threads.submit(keep, "quick", InMemory(pattern(300_000)))
        with pytest.raises(TimeoutError):
            quick.result(0.5)
        go.set()
        assert sorted((slow.result(20), quick.result(20))) == [1, 2]


def test_what_is_entered_after_a_second_look_from_within_the_process_is_not_lost(journal: Journal) -> None:
    """Regression: opening and closing the file beside SQLite dropped its locks, and the next process took the log of changes away."""
    code = "import sys; from pathlib import Path; from s3mount.writeback.journal import Journal\n"
    code += "with Journal.visit(Path(sys.argv[1])) as visitor: print(len(visitor.records()))"

    def seen_elsewhere() -> str:
        root = Path(__file__).parents[2]
        return subprocess.run(
            [sys.executable, "-c", code, journal.folder], cwd=root, check=True, timeout=60, stdout=subprocess.PIPE, text=True
        ).stdout

    journal.apply([Enter(put("a", "1"))])
    Journal.visit(journal.folder).close()
    assert seen_elsewhere() == "1\n"
    journal.apply([Enter(put("b", "2"))])
    assert seen_elsewhere() == "2\n"


def test_a_staged_file_of_the_same_medium_is_linked_and_not_copied(journal: Journal) -> None:
    path = journal.staging / "x.staged"
    path.write_bytes(pattern(500_000))

    class Source:
        length = 500_000

        def __init__(self) -> None:
            self.path: Path | None = path

        def read_into(self, position: int, buffer: memoryview) -> None:
            raise AssertionError("it need not be read")

    journal.take("b", Source())
    assert os.stat(journal.path_of("b")).st_ino == os.stat(path).st_ino
    journal.forget(["b"])


def test_an_owner_sweeps_what_a_former_one_left_half_done(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        journal.take("orphan", InMemory(pattern(200_000)))
        (journal.staging / "x.staged").write_bytes(b"x")
        held = journal.take("held", InMemory(pattern(200_000)))
        journal.apply([Enter(put("a", "1", "held", 200_000), {"held": held})])
    with Journal.open(tmp_path / "j") as journal:
        assert [path.name for path in (journal.folder / "bodies").iterdir()] == ["held"]
        assert list(journal.staging.iterdir()) == []
        journal.check()


def test_nobody_else_may_look_into_the_folder(journal: Journal) -> None:
    for path in [journal.folder, *journal.folder.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_journal_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j") as journal:
        journal._base.execute("PRAGMA user_version = 9")
    with pytest.raises(NewerFormat):
        Journal.open(tmp_path / "j")


def test_a_file_that_is_no_journal_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    (tmp_path / "j/journal.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(Corrupt, match="journal"):
        Journal.open(tmp_path / "j")


def test_pieces_are_written_and_read_again() -> None:
    pieces = (Stored(0, 3, "b", 9), Kept(3, 7), Hole(10, 10))
    assert pieces_from_text(pieces_to_text(pieces)) == pieces


def test_a_content_over_another_names_the_bodies_of_both() -> None:
    below = (Stored(0, 10, "old", 5), Hole(10, 10), Kept(20, 10))
    over = (Kept(0, 4), Stored(4, 2, "new", 0), Kept(6, 20))
    assert compose(over, below) == (
        Stored(0, 4, "old", 5),
        Stored(4, 2, "new", 0),
        Stored(6, 4, "old", 11),
        Hole(10, 10),
        Kept(20, 6),
    )


def size_of(folder: Path) -> int:
    return sum((folder / f"journal.sqlite{end}").stat().st_size for end in ("", "-wal") if (folder / f"journal.sqlite{end}").exists())


def fill_and_empty(journal: Journal) -> int:
    """Hundreds of small files come and go; how large the journal was with them."""
    data = bytes(100 * KiB)
    ids = journal.apply([Enter(put(f"k{n}", f"c{n}", f"b{n}", size=len(data)), {f"b{n}": data}) for n in range(50)])
    largest = size_of(journal.folder)
    journal.apply([Leave(tuple(ids))])
    return largest


def test_a_journal_that_is_empty_takes_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3mount.writeback.base.SPARE_BYTES", 1 * MiB)
    with Journal.open(tmp_path / "j") as journal:
        assert fill_and_empty(journal) > 4 * MiB
        journal.shrink()
        assert size_of(journal.folder) < 1 * MiB
        fill_and_empty(journal)
        journal.check()
    assert size_of(tmp_path / "j") < 1 * MiB


def test_a_journal_of_a_version_that_did_not_shrink_learns_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3mount.writeback.base.SPARE_BYTES", 1 * MiB)
    with Journal.open(tmp_path / "j"):
        pass
    with closing(sqlite3.connect(tmp_path / "j" / "journal.sqlite", isolation_level=None)) as base:
        base.execute("PRAGMA journal_mode = DELETE").fetchall()
        base.execute("PRAGMA auto_vacuum = NONE")
        base.execute("VACUUM")
        assert base.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    with Journal.open(tmp_path / "j") as journal:
        (kept,) = journal.apply([Enter(put("kept", "kept", "body", size=5), {"body": b"bytes"})])
        assert fill_and_empty(journal) > 4 * MiB
        journal.shrink()
        assert size_of(journal.folder) < 1 * MiB
        assert [each.id for each in journal.records()] == [kept]
        journal.check()


def test_a_journal_of_a_version_with_larger_pages_goes_on_and_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3mount.writeback.base.SPARE_BYTES", 2 * MiB)
    with monkeypatch.context() as former:
        former.setattr("s3mount.writeback.base.PAGE_BYTES", 16 * KiB)
        with Journal.open(tmp_path / "j") as journal:
            (kept,) = journal.apply([Enter(put("kept", "kept", "body", size=5), {"body": b"bytes"})])
    with Journal.open(tmp_path / "j") as journal:
        assert journal._base.execute("PRAGMA page_size").fetchone() == (16 * KiB,)
        assert fill_and_empty(journal) > 4 * MiB
        journal.shrink()
        assert size_of(journal.folder) < 1 * MiB
        assert [each.id for each in journal.records()] == [kept]
        journal.check()


def test_a_body_is_there_as_long_as_somebody_names_it_whatever_comes_and_goes(journal: Journal) -> None:
    chance = random.Random(6)
    there: dict[int, Record] = {}

    def some_record(number: int) -> tuple[Record, dict[str, bytes | int]]:
        """Of bodies that others name, and of new ones, in the journal or as a file."""
        names = sorted({name for record in there.values() for name in record.bodies})
        old = chance.sample(names, min(len(names), chance.randrange(3)))
        new: dict[str, bytes | int] = {}
        if not old or chance.random() < 0.5:
            name = f"n{number}"
            new[name] = journal.take(name, InMemory(pattern(140_000))) if chance.random() < 0.2 else b"abcd"
        pieces = tuple(Stored(4 * at, 4, name, 0) for at, name in enumerate([*old, *new]))
        return replace(put(f"k{number}", f"c{number}"), size=4 * len(pieces), pieces=pieces), new

    for number in range(80):
        record, new = some_record(number)
        match chance.choice(["enter", "replace", "amend", "leave", "leave"]):
            case "amend" if there and not new:
                changed = chance.choice(list(there))
                there[changed] = replace(record, id=changed)
                journal.apply([Amend(there[changed])])
            case "leave" if there:
                journal.forget(new)
                left = tuple(chance.sample(list(there), min(len(there), chance.randrange(1, 4))))
                journal.apply([Leave(left)])
                there = {each: kept for each, kept in there.items() if each not in left}
            case verb:
                replaced = (chance.choice(list(there)),) if there and verb == "replace" else ()
                (entered,) = journal.apply([Enter(record, new, replaces=replaced)])
                there = {each: kept for each, kept in there.items() if each not in replaced} | {entered: record}
        journal.check()
        assert sorted(there) == [each.id for each in journal.records()]
    journal.apply([Leave(tuple(there))])
    assert list((journal.folder / "bodies").iterdir()) == []
