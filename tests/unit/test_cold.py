"""Files without an object: found by number and by key, counted, gone through in line; and the memory that they take."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from s3mount.fs import cold as module
from s3mount.fs.cold import Cold, Entry
from s3mount.fs.places import PARTS
from s3mount.model import number_of

TAG = "0123456789abcdef" * 2


def entry(key: str, **more: object) -> Entry:
    return Entry(key, TAG, None, 1, sure=False, was_live=False)._replace(**more)  # type: ignore[arg-type]


def add(cold: Cold, new: Entry) -> bool:
    return cold.add(number_of(new.key), new)


def filled(count: int) -> Cold:
    cold = Cold()
    for number in range(count):
        assert add(cold, entry(f"many/nested/{number // 100:03}/file-{number:07}"))
    return cold


def in_line(cold: Cold) -> list[str]:
    keys = []
    while told := cold.pass_by(3):
        keys += [key for _, key, _ in told]
        if len(told) < 3:
            break
    return keys


@pytest.mark.parametrize(
    "kept",
    [
        entry("f"),
        entry("d/ü€𝄞", lookups=7),
        entry("f", etag="", mtime=""),
        entry("f", etag="ü-2", mtime="1700000000.5"),
        entry("f", sure=True),
        entry("f", was_live=True),
        entry("k" * 4096, etag="e" * 255),
    ],
)
def test_what_is_kept_is_what_was_known(kept: Entry) -> None:
    cold, number = filled(3), number_of(kept.key)
    assert add(cold, kept)
    cold.check()
    assert cold.find(number) == cold.at(kept.key) != 0
    assert cold.entry(cold.at(kept.key)) == kept
    assert cold.take(cold.find(number)) == kept
    assert len(cold) == 3
    assert cold.find(number) == cold.at(kept.key) == 0
    cold.check()


def test_a_version_is_the_same_by_key_and_tag_and_by_its_time_where_both_are_known() -> None:
    cold = filled(3)
    add(cold, entry("ü", etag="e-1"))
    add(cold, entry("timed", etag="e-1", mtime="1.5"))
    for key, time in (("ü", None), ("timed", None), ("timed", "1.5")):
        metadata = None if time is None else {"mtime": time}
        assert cold.is_version(cold.at(key), key, "e-1", metadata)
        assert not cold.is_version(cold.at(key), key, "e-2", metadata)
        assert not cold.is_version(cold.at(key), key + "e", "-1", metadata)
        assert not cold.is_version(cold.at(key), key, "e-", metadata)
    assert cold.is_version(cold.at("ü"), "ü", "e-1", {"mtime": "1.5"})
    assert not cold.is_version(cold.at("timed"), "timed", "e-1", {"mtime": "1.25"})
    assert not cold.is_version(cold.at("timed"), "timed", "e-1", {})


@pytest.mark.parametrize("odd", [entry("f", etag="e" * 256), entry("f", mtime="m" * 9000), entry("f", mtime="\ud800")])
def test_what_there_is_more_to_say_of_is_not_taken(odd: Entry) -> None:
    cold = filled(3)
    assert not add(cold, odd)
    assert len(cold) == 3
    cold.check()


def test_another_key_that_makes_the_same_number_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = filled(3)
    monkeypatch.setattr(module, "number_of", lambda _: 9)
    assert add(cold, entry("a")) is True
    cold.forget(number_of("a"), 1)
    assert cold.add(9, entry("a"))
    assert (cold.at("a"), cold.at("b")) == (cold.find(9), 0)


def test_a_hundred_bytes_and_a_few_are_kept_of_a_file_and_nothing_of_one_that_is_gone() -> None:
    cold, empty = filled(10_000), Cold().size
    assert cold.size / len(cold) < 120
    for number in [cold.number(place) for place in cold]:
        assert cold.forget(number, 1) == 0
    cold.check()
    assert cold.size <= empty + module.CHUNK


def test_what_is_left_of_many_takes_little_room() -> None:
    cold = filled(5000)
    numbers = [cold.number(place) for place in cold]
    random.Random(1).shuffle(numbers)
    for number in numbers[500:]:
        cold.forget(number, 1)
    cold.check()
    cold.compact()
    cold.check()
    assert len(cold) == 500
    assert cold.size < Cold().size + 3 * module.CHUNK


def test_chunks_of_which_little_is_left_are_given_up_while_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CHUNK", 4096), ("SPARSE", 256), ("HALF", 2048), ("SLACK", 8 * 4096)):
        monkeypatch.setattr(module, name, value)
    cold, most = Cold(), 0
    for number in range(3000):
        add(cold, entry(f"many/{number}"))
        if number % 10:
            cold.forget(number_of(f"many/{number}"), 1)
        if number % 30 == 0:
            cold.tidy()
            most = max(most, 4096 * len(cold._all()) - 2 * cold.live)
    cold.check()
    assert len(cold) == 300
    assert most <= 9 * 4096


def test_a_table_of_places_grows_a_part_at_a_time() -> None:
    cold = Cold()
    sizes = [cold._places.size]
    for number in range(9000):
        add(cold, entry(str(number)))
        sizes.append(cold._places.size)
    grown = [after - before for before, after in pairwise(sizes) if after != before]
    assert len(grown) >= PARTS
    assert max(grown) <= cold._places.size / PARTS


def test_no_more_lookups_are_counted_than_there_is_room_for() -> None:
    cold = Cold()
    assert not add(cold, entry("f", lookups=module.MOST_LOOKUPS + 1))
    assert add(cold, entry("f", lookups=module.MOST_LOOKUPS - 1))
    assert cold.told(cold.at("f"), sure=True)
    assert not cold.told(cold.at("f"), sure=False)
    assert cold.entry(cold.at("f")) == entry("f", lookups=module.MOST_LOOKUPS, sure=True)


def test_hardly_anything_is_copied_where_files_go_in_the_order_in_which_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    cold, written = filled(5000), list[bytes]()
    numbers = [cold.number(place) for place in cold]
    write = cold._write

    def counted(record: bytes) -> int:
        written.append(record)
        return write(record)

    monkeypatch.setattr(cold, "_write", counted)
    for number in numbers:
        cold.forget(number, 1)
    assert len(written) < 5000 / 16


def test_the_line_goes_round_and_the_oldest_are_first() -> None:
    cold = filled(2000)
    keys = [cold.key(place) for place in cold]
    assert in_line(cold) == keys == in_line(cold)
    assert [key for _, key, _ in cold.pass_by(2)] == keys[:2]
    cold.forget(number_of(keys[2]), 1)
    add(cold, entry("new"))
    assert in_line(cold) == [*keys[3:], "new"]
    assert in_line(Cold()) == []


def test_keys_below_a_prefix_are_found_in_any_chunk() -> None:
    cold = filled(3000)
    add(cold, entry("a/many/nested/007/"))
    add(cold, entry("many/nest", etag="ed/007/"))
    assert sorted(cold.below("many/nested/007/")) == [f"many/nested/007/file-{number:07}" for number in range(700, 800)]
    assert cold.below("none") == []
    assert len(cold.below("")) == 3002


def test_what_is_below_a_prefix_is_told_in_parts_while_others_come_and_go() -> None:
    cold = filled(5000)
    keys = {cold.key(place) for place in cold}
    found, parts = set[str](), 0
    for numbers in cold.some_below("many/"):
        parts += 1
        for number in numbers:
            if place := cold.find(number):
                found.add(cold.take(place).key)
        add(cold, entry(f"other/{parts}"))
    assert parts >= 5000 * 60 // module.CHUNK
    assert found == keys
    assert len(cold) == parts
    cold.check()


class Table(RuleBasedStateMachine):
    """Against a dictionary. Chunks are small, so that they come and go; and hashes, so that many want the same slots."""

    keys = st.text("abc", max_size=5)

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, value in (("CHUNK", 512), ("SPARSE", 128), ("HALF", 256), ("SLACK", 1024), ("number_of", few_numbers)):
            self.patch.setattr(module, name, value)
        self.cold, self.model = Cold(), dict[int, Entry]()

    def teardown(self) -> None:
        self.patch.undo()

    @rule(key=keys, lookups=st.integers(1, 3), mtime=st.sampled_from([None, "", "1.5"]), sure=st.booleans(), was_live=st.booleans())
    def add(self, key: str, lookups: int, mtime: str | None, sure: bool, was_live: bool) -> None:
        number, new = few_numbers(key), Entry(key, TAG, mtime, lookups, sure, was_live)
        if number not in self.model:
            assert self.cold.add(number, new)
            self.model[number] = new

    @rule(data=st.data(), count=st.integers(1, 3))
    def forget(self, data: st.DataObject, count: int) -> None:
        number = data.draw(st.sampled_from([1, 0, *self.model]))
        former = self.model.pop(number, None)
        left = max(0, former.lookups - count) if former else -1
        assert self.cold.forget(number, count) == left
        if former and left:
            self.model[number] = former._replace(lookups=left)

    @rule(data=st.data(), sure=st.booleans())
    def tell(self, data: st.DataObject, sure: bool) -> None:
        if self.model:
            number = data.draw(st.sampled_from([*self.model]))
            self.cold.told(self.cold.find(number), sure=True)
            self.model[number] = self.model[number]._replace(lookups=self.model[number].lookups + 1, sure=sure)
            if not sure:
                self.cold.doubt(self.cold.at(self.model[number].key))

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        if self.model:
            number = data.draw(st.sampled_from([*self.model]))
            assert self.cold.take(self.cold.find(number)) == self.model.pop(number)

    @rule()
    def compact(self) -> None:
        self.cold.compact()

    @rule()
    def tidy(self) -> None:
        self.cold.tidy()

    @rule(most=st.integers(1, 20))
    def go_on(self, most: int) -> None:
        passed = self.cold.pass_by(most)
        assert passed == [(number, self.model[number].key, self.model[number].was_live) for number, _, _ in passed]

    @rule()
    def go_round(self) -> None:
        in_line(self.cold)
        assert sorted(in_line(self.cold)) == sorted(entry.key for entry in self.model.values())

    @rule(prefix=st.text("abc", max_size=2))
    def look_below(self, prefix: str) -> None:
        assert sorted(self.cold.below(prefix)) == sorted(one.key for one in self.model.values() if one.key.startswith(prefix))

    @invariant()
    def is_the_same(self) -> None:
        self.cold.check()
        assert {self.cold.number(place): self.cold.entry(place) for place in self.cold} == self.model


def few_numbers(key: str) -> int:
    """Of which many want to stand at the end of a table, and so at its beginning, behind one another."""
    return number_of(key) | 1016 << 20 | 1016


TestTable = pytest.mark.slow(Table.TestCase)
TestTable.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
