"""The table of inodes: numbers, lookup counts, and what names what."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from s3mount.errors import Stale
from s3mount.fs.attrs import Attributes
from s3mount.fs.inodes import ASKED, ROOT, DirInode, FileInode, Inodes, Standing, fresh_number
from s3mount.model import ETag, number_of

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = Attributes(0o040755, 0, 0, 0, 0, 0)


def table(limit: int = 10) -> Inodes:
    return Inodes(DirInode(ROOT, "", NOBODY, marked=False), limit=limit)


def file(inodes: Inodes, ino: int, key: str) -> FileInode:
    inode = FileInode(ino, key, etag=ETag("e"), file_id=ino)
    inodes.add(inode)
    inodes.remember(inode)
    return inode


def test_a_number_is_forgotten_with_its_last_lookup() -> None:
    inodes = table()
    inode = file(inodes, 7, "f")
    inodes.remember(inode)
    inodes.forget(7, 1)
    assert inodes.get(7) is inode
    inodes.forget(7, 1)
    with pytest.raises(Stale):
        inodes.get(7)
    assert inodes.file_at("f") is None
    inodes.forget(7, 1)
    inodes.check()


def test_numbers_that_are_gone_are_not_kept() -> None:
    inodes = table()
    for ino in range(2, 20_000):
        file(inodes, ino, str(ino))
        inodes.forget(ino - 10, 1)
    assert repr(inodes).startswith("<Inodes 11, ")
    assert int(repr(inodes).split()[2]) < 1100
    inodes.check()


def test_a_taken_number_is_replaced_by_a_fresh_one() -> None:
    inodes = table()
    file(inodes, 7, "f")
    assert inodes.number(8) == 8
    assert inodes.number(7) not in (0, 1, 7)
    assert inodes.number(0) > 1
    assert inodes.number(ROOT) > 1


def test_numbers_of_keys_fit_62_bits_and_do_not_change() -> None:
    assert number_of("a/b") == number_of("a/b")
    assert all(2 <= number < 2**62 for number in [*(number_of(str(at)) for at in range(1000)), *(fresh_number() for _ in range(1000))])


def test_a_file_with_two_names_loses_one_and_keeps_the_other() -> None:
    inodes = table()
    inode = file(inodes, 7, "a")
    inodes.name(inode, "b")
    assert inodes.file_at("a") is inodes.file_at("b") is inode
    inodes.unname("b", links_left=True)
    assert (inode.key, inode.standing) == ("a", Standing.NAMED)
    inodes.unname("a", links_left=False)
    assert inode.standing is Standing.UNLINKED
    inodes.check()


def test_a_file_that_loses_one_of_three_names_keeps_the_other_two() -> None:
    inodes = table()
    inode = file(inodes, 7, "a")
    for key in ("b", "c"):
        inodes.name(inode, key)
    inodes.displace_at("b")
    inodes.check()
    assert inode.keys == {"a", "c"}


def test_a_displaced_file_can_take_its_key_back() -> None:
    inodes = table()
    old = file(inodes, 7, "f")
    inodes.displace(old)
    assert old.standing is Standing.DISPLACED
    new = file(inodes, 8, "f")
    inodes.name(old, "f")
    assert inodes.file_at("f") is old
    assert new.standing is Standing.DISPLACED
    inodes.check()


def test_names_are_moved_all_at_once() -> None:
    inodes = table()
    a, b = file(inodes, 7, "x/a"), file(inodes, 8, "y/a")
    inodes.name(a, "x/link")
    assert inodes.move_files({"x/a": "y/a", "y/a": "x/a", "x/link": "z"}) == [a, b]
    assert inodes.file_at("y/a") is a
    assert inodes.file_at("z") is a
    assert inodes.file_at("x/a") is b
    inodes.check()


def test_cold_files_are_named_oldest_first_and_only_beyond_the_limit() -> None:
    inodes = table(limit=5)
    files = [file(inodes, number, str(number)) for number in range(10, 14)]
    assert inodes.cold(3) == []
    files += [file(inodes, number, str(number)) for number in range(14, 20)]
    assert inodes.cold(3) == files[:3]
    assert inodes.cold(3) == files[3:6]


def test_the_kernel_is_not_asked_for_ever_more_before_it_answers() -> None:
    inodes = table(limit=0)
    files = [file(inodes, number, str(number)) for number in range(10, 10 + 2 * ASKED)]
    asked = [inode for _ in range(ASKED) for inode in inodes.cold(2)]
    assert asked == files[:ASKED]
    inodes.forget(files[0].ino, 1)
    assert inodes.cold(2) == files[ASKED : ASKED + 2]
    while not (asked := inodes.cold(2)):
        pass
    assert asked


def test_what_was_live_is_never_named_as_unused_nor_is_a_directory() -> None:
    inodes = table(limit=0)
    files = [file(inodes, number, str(number)) for number in range(10, 16)]
    inodes.add(DirInode(20, "d/", NOBODY, marked=False))
    inodes.remember(inodes.get(20))
    files[2].was_live = True
    assert inodes.unused(4) == [files[0], files[1]]  # the root is first in line, and there are four of them
    assert inodes.unused(100) == files[3:]
    assert inodes.unused(100) == []


def test_tables_that_many_have_left_take_less_room() -> None:
    inodes = table(limit=100_000)
    for ino in range(10, 10_000):
        file(inodes, ino, str(ino))
    for ino in range(10, 9_990):
        inodes.forget(ino, 1)
    inodes.compact()
    assert inodes.in_line == len(inodes) == 11
    assert all(sys.getsizeof(held) < 1000 for held in (inodes._by_ino, inodes._files, inodes._clock))
    inodes.check()


@pytest.mark.slow
def test_what_stays_of_a_walk_is_made_anew_side_by_side() -> None:
    """A thousand directories kept as many MiB of Python's memory from the system, with some hundred bytes in each."""
    said = subprocess.run([sys.executable, "-m", "tests.unit.side_by_side"], capture_output=True, check=True, cwd=REPOSITORY, timeout=60)
    at_the_end, settled, inodes = map(int, said.stdout.split())
    assert inodes == 51
    assert settled <= at_the_end * 2 / 3  # a third or half of them, by the version of Python; all, where nothing is made anew


def test_directories_are_what_they_were_when_they_have_settled() -> None:
    inodes = table()
    inode = DirInode(1 << 60, "d/", Attributes(0o040700, 1, 2, 1 << 61, 1 << 62, 1 << 60, 0, {b"user.a": b"b"}), marked=True)
    inode.seen_s, inode.touched_ns = 7.5, 9
    inodes.add(inode)
    inodes.remember(inode)
    file(inodes, 7, "d/f")
    before = (inode.ino, inode.key, inode.attributes, inode.marked, inode.seen_s, inode.touched_ns, inode.lookups)
    ino, attributes = inode.ino, inode.attributes
    inodes.settle(100)
    inodes.compact()
    assert (inode.ino, inode.key, inode.attributes, inode.marked, inode.seen_s, inode.touched_ns, inode.lookups) == before
    assert inode.ino is not ino
    assert inode.attributes is not attributes
    assert inodes.get(ino) is inodes.directory_at("d/") is inode
    inodes.check()


class Table(RuleBasedStateMachine):
    """Any sequence of calls leaves the invariants standing."""

    keys = st.sampled_from("abcd")

    def __init__(self) -> None:
        super().__init__()
        self.inodes = table()

    @rule(key=keys)
    def look_up(self, key: str) -> None:
        inode = self.inodes.file_at(key) or FileInode(self.inodes.number(number_of(key)), key, etag=ETag("e"), file_id=0)
        if self.inodes.find(inode.ino) is None:
            self.inodes.add(inode)
        self.inodes.remember(inode)

    @rule(key=keys, count=st.integers(1, 3))
    def forget(self, key: str, count: int) -> None:
        self.inodes.forget(number_of(key), count)

    @rule(key=keys, left=st.booleans())
    def unname(self, key: str, left: bool) -> None:
        self.inodes.unname(key, links_left=left)

    @rule(key=keys)
    def displace_at(self, key: str) -> None:
        self.inodes.displace_at(key)

    @rule(key=keys)
    def displace(self, key: str) -> None:
        inode = self.inodes.file_at(key)
        if inode is not None:
            self.inodes.displace(inode)

    @rule(key=keys, other=keys)
    def name(self, key: str, other: str) -> None:
        inode = self.inodes.find(number_of(key))
        if isinstance(inode, FileInode):
            self.inodes.name(inode, other)

    @rule(source=keys, new=keys)
    def move(self, source: str, new: str) -> None:
        if source != new and self.inodes.file_at(source) is not None:
            self.inodes.unname(new, links_left=False)
            if self.inodes.file_at(source) is not None:
                self.inodes.move_files({source: new})

    @rule(among=st.integers(0, 4))
    def settle(self, among: int) -> None:
        self.inodes.settle(among)

    @rule()
    def compact(self) -> None:
        self.inodes.compact()

    @invariant()
    def holds(self) -> None:
        self.inodes.check()


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=30)
