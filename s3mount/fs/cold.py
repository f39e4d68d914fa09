"""Files that the kernel was only told of, without an object of Python for any of them.

Owns: their records, where these lie, and how they are found.
Must not know: what an inode is, who asks, when one is folded into this (see inodes). Nothing here awaits; mappings are of memory.

A walk shows a hundred thousand files that nobody opens. As objects (the inode, number, key, ETag) they are 340 bytes each in the small
blocks that Python lends out by the MiB, and the one thing in a MiB that stays keeps all of it from the system. Here each is a record
of some 80 bytes in a chunk, and 20 to 40 more in a table of places. Chunks and tables are mappings of their own: what is let go is the
system's at once, whatever lies beside it. Only files are taken whose number is made of their key, so that one table finds them by both: not
those of a store that knows them by an id, nor those renamed since they are known.

    record   number, lookups, lengths, flags, then key, tag and time as text. Written behind the last one; never moved but out of a chunk of
             which little is left. A number of 0: it is gone.
    place    number of the chunk << 16 | offset: 32 bits, never 0. It holds until the next `insert`, `forget`, `take`, `tidy` or `compact`.
             Found by number (see places).
    line     chunks in the order in which they were filled, gone through again and again: the oldest first, as nearly as need be.

Invariants (`check`):
C1  Each live record has one place, found by its number, which is made of its key; there are no other places.
C2  What is gone of a chunk are its records without a number; of a full one no more than all but `SPARSE`. So nearly nothing is copied where
    files go in the order in which they came; `tidy` and `compact` are for the rest.
C3  Each chunk that there is stands in one place: it is the last, still to be passed in this round, or passed.
C4  Who calls `tidy` as often as he lets some hundreds in has chunks for no more than twice what lives, and `SLACK`.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from mmap import mmap
from struct import Struct
from typing import NamedTuple

from s3mount.fs.places import Places, pages
from s3mount.model import number_of

CHUNK_BITS = 16
CHUNK = 1 << CHUNK_BITS
OFFSET = CHUNK - 1
# Live bytes below which a full chunk is given up at once, and when all is made compact.
SPARSE, HALF = CHUNK // 16, CHUNK // 2

# Chunks that are given up for the sake of room in one go: ten milliseconds.
AT_ONCE = 16
# Bytes of chunks that are not worth a thought.
SLACK = 8 * CHUNK

# number, lookups, bytes of the text, characters of its key and of its tag, flags
HEADER = Struct("<QIHHBB")
NUMBER, LOOKUPS, LOOKUPS_SIZE = Struct("<Q"), Struct("<I"), Struct("<IH")
LOOKUPS_AT, FLAGS_AT = NUMBER.size, HEADER.size - 1
NO_NUMBER = bytes(NUMBER.size)
# Bytes of a text, characters of a tag, and lookups; what has more is not taken.
LONGEST, LONGEST_TAG, MOST_LOOKUPS = CHUNK // 8, 255, (1 << 32) - 1

SURE, WAS_LIVE, TIMED = 1, 2, 4

# In place of a chunk that is not there.
NOTHING = pages(1)


class Entry(NamedTuple):
    """What is known of a file: as `FileInode` has it."""

    key: str
    etag: str
    mtime: str | None
    lookups: int
    sure: bool
    was_live: bool


class Cold:
    """The table of those files."""

    def __init__(self) -> None:
        self._places = Places()
        self._count = self._live = 0
        self._chunks: list[mmap] = [NOTHING]
        self._used, self._gone, self._passed = array("I", [CHUNK]), array("I", [CHUNK]), array("I", [CHUNK])
        self._spare: list[int] = []
        self._last, self._tail, self._end = 0, NOTHING, CHUNK
        self._ahead: deque[int] = deque()
        self._behind: deque[int] = deque()

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Cold {len(self)} in {self.size} bytes>"

    @property
    def live(self) -> int:
        """Bytes of the records of all."""
        return self._live

    @property
    def size(self) -> int:
        """Bytes of memory, as far as it has been touched."""
        return CHUNK * len(self._all()) + self._places.size

    # -- finding ----------------------------------------------------------------------

    def find(self, number: int) -> int:
        """The place of *number*, 0 if it is not here."""
        return self._places.part(number).find(number)

    def at(self, key: str) -> int:
        """The place of *key*, 0 if it is not here."""
        if not self._count:
            return 0
        place = self.find(number_of(key))
        return place if place and self.key(place) == key else 0

    def below(self, prefix: str) -> list[str]:
        """The keys that begin with *prefix*."""
        return [self.key(place) for number in self._all() for place in self._below(number, prefix)]

    def some_below(self, prefix: str) -> Iterator[list[int]]:
        """The numbers of those keys, a chunk's at a time. Others may come and go meanwhile; what is written anew then may be left out."""
        for number in self._all():
            if self._chunks[number] is not NOTHING and (places := self._below(number, prefix)):
                yield [self.number(place) for place in places]

    def _below(self, number: int, prefix: str) -> list[int]:
        """The places in one chunk."""
        chunk, start, found = self._chunks[number], prefix.encode(), list[int]()
        if chunk.find(start, 0, self._filled(number)) >= 0:
            for place, _, itself in self._records(number):
                at = (place & OFFSET) + HEADER.size
                if itself and chunk.find(start, at, at + len(start)) == at and self.key(place).startswith(prefix):
                    found.append(place)
        return found

    def __iter__(self) -> Iterator[int]:
        """The places of all; nothing may come or go meanwhile."""
        for number in self._all():
            yield from self._living(number)

    def _all(self) -> list[int]:
        return [*self._behind, *self._ahead, *([self._last] if self._last else [])]

    def _filled(self, number: int) -> int:
        return self._end if number == self._last else self._used[number]

    def _living(self, number: int) -> Iterator[int]:
        return (place for place, _, itself in self._records(number) if itself)

    def _records(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Place, size and number of all that was written into a chunk."""
        chunk, end, at = self._chunks[number], self._filled(number), 0
        while at < end:
            itself, _, size, _, _, _ = HEADER.unpack_from(chunk, at)
            yield number << CHUNK_BITS | at, HEADER.size + size, itself
            at += HEADER.size + size

    # -- what is there ----------------------------------------------------------------

    def key(self, place: int) -> str:
        chunk, at = self._chunks[place >> CHUNK_BITS], place & OFFSET
        _, _, size, key, _, _ = HEADER.unpack_from(chunk, at)
        return chunk[at + HEADER.size : at + HEADER.size + size].decode()[:key]

    def number(self, place: int) -> int:
        number: int = NUMBER.unpack_from(self._chunks[place >> CHUNK_BITS], place & OFFSET)[0]
        return number

    def entry(self, place: int) -> Entry:
        chunk, at = self._chunks[place >> CHUNK_BITS], place & OFFSET
        _, lookups, size, key, tag, flags = HEADER.unpack_from(chunk, at)
        text = chunk[at + HEADER.size : at + HEADER.size + size].decode()
        mtime = text[key + tag :] if flags & TIMED else None
        return Entry(text[:key], text[key : key + tag], mtime, lookups, flags & SURE != 0, flags & WAS_LIVE != 0)

    def is_version(self, place: int, key: str, etag: str, metadata: Mapping[str, str] | None) -> bool:
        """Whether it is of *key* and *etag*, and its time what *metadata* says, where both are known."""
        chunk, at = self._chunks[place >> CHUNK_BITS], place & OFFSET
        _, _, size, key_size, tag_size, flags = HEADER.unpack_from(chunk, at)
        wanted, start = (key + etag).encode(), at + HEADER.size
        if key_size != len(key) or tag_size != len(etag) or chunk[start : start + len(wanted)] != wanted:
            return False
        if metadata is None or not flags & TIMED:
            return True
        return chunk[start + len(wanted) : start + size].decode() == metadata.get("mtime")

    def told(self, place: int, *, sure: bool) -> bool:
        """It has been looked up once more, and is as sure as that. False, and nothing is changed, where that is too often."""
        chunk, at = self._chunks[place >> CHUNK_BITS], place & OFFSET
        lookups = LOOKUPS.unpack_from(chunk, at + LOOKUPS_AT)[0]
        if lookups == MOST_LOOKUPS:
            return False
        LOOKUPS.pack_into(chunk, at + LOOKUPS_AT, lookups + 1)
        chunk[at + FLAGS_AT] = chunk[at + FLAGS_AT] & ~SURE | SURE * sure
        return True

    def doubt(self, place: int) -> None:
        """It is not sure any more."""
        chunk, at = self._chunks[place >> CHUNK_BITS], (place & OFFSET) + FLAGS_AT
        chunk[at] &= ~SURE

    # -- coming and going -------------------------------------------------------------

    def add(self, number: int, entry: Entry) -> bool:
        """*number* is made of the key, and not here. False, and nothing is changed, where there is more to say of a file than of most."""
        key, etag, mtime, lookups, sure, was_live = entry
        return self.insert(number, key, etag, mtime, lookups=lookups, flags=SURE * sure | WAS_LIVE * was_live)

    def insert(self, number: int, key: str, etag: str, mtime: str | None, *, lookups: int, flags: int) -> bool:
        """As `add`, for who has a hundred thousand: *flags* are `SURE` and `WAS_LIVE`."""
        try:
            if mtime is None:
                text = (key + etag).encode()
            else:
                text = (key + etag + mtime).encode()
                flags |= TIMED
        except UnicodeEncodeError:
            return False
        size = len(text)
        if size > LONGEST or len(etag) > LONGEST_TAG or lookups > MOST_LOOKUPS:
            return False
        self._places.part(number).put(number, self._write(HEADER.pack(number, lookups, size, len(key), len(etag), flags) + text))
        self._count += 1
        self._live += HEADER.size + size
        return True

    def _write(self, record: bytes) -> int:
        at = self._end
        end = at + len(record)
        if end > CHUNK:
            self._next_chunk()
            at = self._end
            end = at + len(record)
        self._tail[at:end] = record
        self._end = end
        return self._last << CHUNK_BITS | at

    def _next_chunk(self) -> None:
        full, chunk = self._last, pages(CHUNK)
        if not self._spare:
            self._spare.append(len(self._chunks))
            self._chunks.append(NOTHING)
            for counts in (self._used, self._gone, self._passed):
                counts.append(0)
        self._used[full] = self._end
        self._last = last = self._spare.pop()
        self._tail = self._chunks[last] = chunk
        self._gone[last] = self._passed[last] = self._end = 0
        if full:
            self._ahead.append(full)
            if self._used[full] - self._gone[full] < SPARSE:
                self._give_up(full)

    def forget(self, number: int, count: int) -> int:
        """*number* was given back *count* times. How many are left; -1 where it is not known."""
        places = self._places.part(number)
        place = places.find(number)
        if not place:
            return -1
        where, at = place >> CHUNK_BITS, place & OFFSET
        chunk = self._chunks[where]
        lookups, size = LOOKUPS_SIZE.unpack_from(chunk, at + LOOKUPS_AT)
        if lookups > count:
            LOOKUPS.pack_into(chunk, at + LOOKUPS_AT, lookups - count)
            return int(lookups - count)
        places.pop(number)
        self._count -= 1
        self._live -= HEADER.size + size
        chunk[at : at + NUMBER.size] = NO_NUMBER
        self._gone[where] = gone = self._gone[where] + HEADER.size + size
        if where != self._last:
            if self._used[where] - gone < SPARSE:
                self._give_up(where)
        elif gone == self._end:
            self._gone[where] = self._passed[where] = self._end = 0
        return 0

    def take(self, place: int) -> Entry:
        """What is known of it, which is not here any more."""
        entry = self.entry(place)
        self.forget(self.number(place), entry.lookups)
        return entry

    def _give_up(self, number: int) -> None:
        """What is left of a full chunk is written anew; so it is among the youngest."""
        chunk, records = self._chunks[number], [*self._records(number)]
        (self._ahead if number in self._ahead else self._behind).remove(number)
        self._chunks[number] = NOTHING
        self._spare.append(number)
        for place, size, itself in records:
            if itself:
                self._places.part(itself).put(itself, self._write(chunk[place & OFFSET : (place & OFFSET) + size]))

    def tidy(self) -> None:
        """Where more than half of all chunks is gone, the one is given up of which most is: a millisecond."""
        if CHUNK * (len(self._chunks) - len(self._spare) - 1) > 2 * self._live + SLACK:
            full = [*self._behind, *self._ahead]
            self._give_up(min(full, key=lambda number: self._used[number] - self._gone[number]))

    def compact(self) -> None:
        """Less room for who is gone: half of it at most, unless that were a long work; then part of it."""
        sparse = (number for number in self._all() if number != self._last and self._used[number] - self._gone[number] < HALF)
        for number in [*islice(sparse, AT_ONCE)]:
            self._give_up(number)

    # -- the line ---------------------------------------------------------------------

    def pass_by(self, most: int) -> list[tuple[int, str, bool]]:
        """The next in line: number, key, and whether it was live. Fewer than *most* (1 or more) at its end; then it begins anew."""
        found: list[tuple[int, str, bool]] = []
        while True:
            number = self._ahead[0] if self._ahead else self._last
            chunk, end, at = self._chunks[number], self._filled(number), self._passed[number]
            while at < end and len(found) < most:
                itself, _, size, key, _, flags = HEADER.unpack_from(chunk, at)
                start = at + HEADER.size
                at = start + size
                if itself:
                    found.append((itself, chunk[start:at].decode()[:key], flags & WAS_LIVE != 0))
            self._passed[number] = at
            if len(found) == most:
                return found
            if not self._ahead:
                self._begin_anew()
                return found
            self._behind.append(self._ahead.popleft())

    def _begin_anew(self) -> None:
        self._ahead, self._behind = self._behind, self._ahead
        for number in self._all():
            self._passed[number] = 0

    # -- invariants -------------------------------------------------------------------

    def check(self) -> None:
        entries = {place: self.entry(place) for place in self}
        assert self._places.check() == {self.number(place): place for place in entries}, "C1"
        assert all(number_of(entry.key) == self.number(place) for place, entry in entries.items()), "C1"
        for number in self._all():
            gone = sum(size for _, size, itself in self._records(number) if not itself)
            assert self._gone[number] == gone, "C2"
            assert number == self._last or self._used[number] - gone >= SPARSE, "C2"
        assert self._count == len(entries), "C1"
        assert self._live == sum(self._filled(number) - self._gone[number] for number in self._all()), "C2"
        there = [number for number, chunk in enumerate(self._chunks) if chunk is not NOTHING]
        assert sorted(self._all()) == there, "C3"
        assert sorted([*there, *self._spare]) == list(range(1, len(self._chunks))), "C3"
