"""The log: appended by several, followed by all, cut where a crash left a tail, and honest about damage."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from s3mount.engine.codec import Buffer
from s3mount.engine.disk import Disk
from s3mount.engine.layout import Layout, prepare
from s3mount.engine.log import Damaged, Entry, Gap, Log
from s3mount.engine.segment import BEGINNING, Position
from s3mount.errors import NoSpace, Unavailable
from tests.conftest import ExpectLogs

SMALL = 1000


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return prepare(tmp_path / "data", Disk(), create=True)


def opened(layout: Layout, disk: Disk | None = None, *, segment_bytes: int = SMALL) -> Log:
    log = Log(layout, disk or Disk(), segment_bytes=segment_bytes)
    list(log.scan(None))
    return log


def fill(log: Log, count: int, *, first: int = 0) -> list[Position]:
    return [log.append(b"payload %d" % (first + number)).position for number in range(count)]


def payloads(log: Log, after: Position | None = None) -> list[bytes]:
    return [entry.payload for entry in log.scan(after)]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def lengthen(path: Path, junk: bytes) -> None:
    with path.open("ab") as file:
        file.write(junk)


# -- following ----------------------------------------------------------------------------


def test_what_was_appended_is_scanned_in_order_across_segments(layout: Layout) -> None:
    log = opened(layout)
    ends = fill(log, 100)
    assert len(layout.segments()) > 3
    entries = list(opened(layout).scan(None))
    assert [entry.payload for entry in entries] == [b"payload %d" % number for number in range(100)]
    assert [entry.position for entry in entries] == ends
    assert [end.seq for end in ends] == list(range(1, 101))


def test_a_scan_goes_on_behind_any_position(layout: Layout) -> None:
    log = opened(layout)
    ends = fill(log, 60)
    for number, end in enumerate(ends):
        assert payloads(opened(layout), end) == [b"payload %d" % later for later in range(number + 1, 60)]


def test_each_sees_what_the_other_appended_also_when_the_other_rotated(layout: Layout) -> None:
    one, two = opened(layout), opened(layout)
    for turn in range(0, 100, 2):
        assert payloads(one, one.end()) == ([b"payload %d" % (turn - 1)] if turn else [])
        fill(one, 1, first=turn)
        assert payloads(two, two.end()) == [b"payload %d" % turn]
        fill(two, 1, first=turn + 1)
    assert payloads(opened(layout)) == [b"payload %d" % number for number in range(100)]


def test_inline_bodies_stand_where_appending_and_scanning_say(layout: Layout) -> None:
    log = opened(layout)
    appended = [log.append(b"p", [b"a" * number, b"bb", b"ccc"]) for number in range(40)]
    for number, (done, entry) in enumerate(zip(appended, log.scan(None), strict=True)):
        assert entry.inline_at == done.inline[0]
        for (segment, offset), expected in zip(done.inline, [b"a" * number, b"bb", b"ccc"], strict=True):
            fd = log.open_segment(segment)
            assert os.pread(fd, len(expected), offset) == expected
            os.close(fd)


def test_an_empty_segment_that_a_crash_left_is_used(layout: Layout) -> None:
    log = opened(layout)
    fill(log, 3)
    layout.segment(4).touch()
    again = opened(layout)
    assert again.end().segment == 4
    fill(again, 1, first=3)
    assert payloads(opened(layout)) == [b"payload %d" % number for number in range(4)]


def test_a_log_holds_its_own_positions_and_no_others(layout: Layout) -> None:
    log = opened(layout)
    ends = fill(log, 40)
    assert all(log.holds(end) for end in [BEGINNING, *ends])
    last = ends[-1]
    others = [
        Position(last.segment, last.offset + 1, last.seq, last.chain),
        Position(last.segment, last.offset, last.seq + 1, last.chain),
        Position(last.segment, last.offset, last.seq, last.chain ^ 1),
        Position(last.segment + 7, last.offset, last.seq, last.chain),
        Position(last.segment, 3, last.seq, last.chain),
    ]
    assert not any(log.holds(other) for other in others)


# -- marks --------------------------------------------------------------------------------


def test_marks_ride_in_later_records_and_are_found_again(layout: Layout) -> None:
    log = opened(layout)
    fill(log, 5)
    assert opened(layout).newest_mark() == 0
    log.advance_mark(4)
    end = fill(log, 1)[0]
    again = Log(layout, Disk())
    assert again.newest_mark() == 4
    assert again.take_up(end)
    assert again.mark == 4


def test_a_mark_behind_damage_is_found(layout: Layout) -> None:
    log = opened(layout, segment_bytes=1 << 20)
    ends = fill(log, 3)
    log.advance_mark(3)
    fill(log, 1)
    flip(layout.segment(1), ends[0].offset + 5)
    assert Log(layout, Disk()).newest_mark() == 3


def test_the_start_of_a_record_is_the_start_of_its_segment(layout: Layout) -> None:
    log = opened(layout)
    fill(log, 60)
    for seq in range(1, 61):
        first = next(item for item in log.walk(log.start_of(seq)) if isinstance(item, Entry))
        assert first.position.seq <= seq
        assert first.position.segment == first.position.seq


# -- tails --------------------------------------------------------------------------------


def test_a_tail_of_any_length_is_a_gap_and_can_be_cut(layout: Layout, expect_logs: ExpectLogs) -> None:
    whole = opened(layout)
    before = fill(whole, 3)[-1]
    size = layout.segment(1).stat().st_size
    fill(whole, 1, first=3)
    record = layout.segment(1).read_bytes()[size:]
    for kept in range(1, len(record)):
        layout.segment(1).write_bytes(layout.segment(1).read_bytes()[:size] + record[:kept])
        log = Log(layout, Disk(), segment_bytes=SMALL)
        with pytest.raises(Damaged) as caught:
            list(log.scan(None))
        assert caught.value.gap == Gap(end=before, resume=None)
    expect_logs("The log was cut behind record 3")
    log.cut(before)
    assert layout.segment(1).stat().st_size == size
    assert payloads(log) == [b"payload 0", b"payload 1", b"payload 2"]
    assert [path.read_bytes() for path in layout.quarantine.iterdir()] == [record[:-1]]
    fill(log, 1, first=3)
    assert layout.segment(1).read_bytes()[size:] == record


def test_a_cut_takes_later_segments_away_and_keeps_them_aside(layout: Layout, expect_logs: ExpectLogs) -> None:
    expect_logs("The log was cut")
    log = opened(layout)
    ends = fill(log, 60)
    contents = {path.name: path.read_bytes() for path in layout.log.iterdir()}
    log.cut(ends[1])
    assert layout.segments() == [1]
    assert payloads(opened(layout)) == [b"payload 0", b"payload 1"]
    assert sum(path.stat().st_size for path in layout.quarantine.iterdir()) == sum(map(len, contents.values())) - ends[1].offset
    log.cut(ends[1])
    assert payloads(opened(layout)) == [b"payload 0", b"payload 1"]


# -- damage -------------------------------------------------------------------------------


def test_damage_in_the_middle_is_reported_with_what_it_costs(layout: Layout) -> None:
    log = opened(layout)
    ends = fill(log, 60)
    flip(layout.segment(1), ends[1].offset + 20)
    damaged = Log(layout, Disk())
    with pytest.raises(Damaged, match=r"record 3 cannot be read.*rebuild --salvage") as caught:
        list(damaged.scan(None))
    assert caught.value.gap.end == ends[1]
    assert caught.value.gap.resume == ends[2]


def test_a_walk_goes_on_behind_damage(layout: Layout) -> None:
    log = opened(layout)
    ends = fill(log, 60)
    flip(layout.segment(1), ends[1].offset + 20)
    flip(layout.segment(1), ends[2].offset + 20)
    items = list(Log(layout, Disk()).walk(None))
    assert [item.payload for item in items if isinstance(item, Entry)] == [
        b"payload %d" % number for number in range(60) if number not in (2, 3)
    ]
    assert [item.lost for item in items if isinstance(item, Gap)] == ["records 3 to 4"]


def test_a_missing_segment_is_a_gap(layout: Layout) -> None:
    log = opened(layout)
    fill(log, 60)
    first, second, third, *_ = layout.segments()
    layout.segment(second).unlink()
    gaps = [item for item in Log(layout, Disk()).walk(None) if isinstance(item, Gap)]
    assert [gap.lost for gap in gaps] == [f"records {second} to {third - 1}"]
    layout.segment(first).unlink()
    with pytest.raises(Damaged, match=f"records 1 to {third - 1}"):
        list(Log(layout, Disk()).scan(None))


def test_a_segment_that_ends_too_soon_is_a_gap(layout: Layout) -> None:
    log = opened(layout)
    ends = fill(log, 60)
    os.truncate(layout.segment(1), ends[4].offset)
    second = layout.segments()[1]
    gaps = [item for item in Log(layout, Disk()).walk(None) if isinstance(item, Gap)]
    assert [(gap.end.seq, gap.lost) for gap in gaps] == [(5, f"records 6 to {second - 1}")]


def test_a_record_left_over_from_another_history_does_not_join(layout: Layout, expect_logs: ExpectLogs) -> None:
    expect_logs("The log was cut")
    log = opened(layout)
    ends = fill(log, 3)
    left_over = layout.segment(1).read_bytes()[ends[1].offset :]
    log.cut(ends[0])
    log.append(b"payload X")
    lengthen(layout.segment(1), left_over)
    items = list(Log(layout, Disk()).walk(None))
    assert [item.payload for item in items if isinstance(item, Entry)][:2] == [b"payload 0", b"payload X"]
    assert isinstance(items[2], Gap)


def test_void_records_are_passed_over_for_good(layout: Layout) -> None:
    log = opened(layout)
    ends = fill(log, 40)
    log.void([ends[5], ends[30]])
    expected = [b"payload %d" % number for number in range(40) if number not in (5, 30)]
    assert payloads(log) == expected
    assert payloads(opened(layout)) == expected
    assert fill(log, 1, first=40)[0].seq == 41


def test_a_void_record_is_known_by_its_checksum_not_its_number_alone(layout: Layout, expect_logs: ExpectLogs) -> None:
    expect_logs("The log was cut")
    log = opened(layout)
    ends = fill(log, 3)
    log.void([ends[2]])
    log.cut(ends[1])
    log.append(b"another third")
    assert payloads(opened(layout)) == [b"payload 0", b"payload 1", b"another third"]


# -- errors of the medium -----------------------------------------------------------------


class Failing(Disk):
    """Fails the named operation with *code* while it is set."""

    def __init__(self) -> None:
        self.fails: str | None = None
        self.code = errno.ENOSPC
        self.short = False
        self.syncs = 0

    def step(self, name: str) -> None:
        if name == self.fails and not self.short:
            raise OSError(self.code, os.strerror(self.code))
        self.syncs += name == "fsync"

    def write_all(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        if self.short:
            os.pwrite(fd, b"".join(bytes(buffer) for buffer in buffers)[:20], offset)
            raise OSError(self.code, os.strerror(self.code))
        super().write_all(fd, buffers, offset)


def test_a_full_medium_appends_nothing_and_leaves_nothing(layout: Layout) -> None:
    disk = Failing()
    log = opened(layout, disk)
    fill(log, 2)
    size = layout.segment(1).stat().st_size
    disk.short = True
    with pytest.raises(NoSpace, match="No space left"):
        log.append(b"too much")
    assert layout.segment(1).stat().st_size == size
    disk.short = False
    fill(log, 1, first=2)
    assert payloads(opened(layout)) == [b"payload 0", b"payload 1", b"payload 2"]


def test_after_a_failed_sync_nothing_is_acknowledged_until_the_log_is_opened_again(layout: Layout, expect_logs: ExpectLogs) -> None:
    expect_logs("could not be synced")
    disk = Failing()
    log = opened(layout, disk)
    fill(log, 2)
    disk.fails, disk.code = "fsync", errno.EIO
    with pytest.raises(Unavailable, match="recent changes may be lost"):
        log.sync()
    disk.fails = None
    for action in (log.sync, lambda: log.append(b"more")):
        with pytest.raises(Unavailable, match="open it again"):
            action()
    assert fill(opened(layout), 1)[0].seq == 3


def test_a_sync_with_nothing_new_costs_nothing(layout: Layout) -> None:
    disk = Failing()
    log = opened(layout, disk)
    fill(log, 2)
    assert log.sync() == 2
    before = disk.syncs
    assert log.sync() == 2
    assert disk.syncs == before


def test_a_sync_covers_every_segment_since_the_last_one(layout: Layout) -> None:
    synced: list[str] = []

    class Watching(Disk):
        def fsync(self, fd: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{fd}"))

        def fsync_dir(self, path: Path) -> None:
            synced.append(str(path))

    other = opened(layout)
    log = opened(layout, Watching())
    fill(other, 40)
    list(log.scan(log.end()))
    log.sync()
    assert synced == [
        *(str(layout.segment(number)) for number in layout.segments()[:-1]),
        str(layout.log),
        str(layout.segment(layout.segments()[-1])),
    ]


def test_callers_at_the_same_time_share_a_sync(layout: Layout) -> None:
    entered, release = threading.Event(), threading.Event()

    class Slow(Disk):
        syncs = 0

        def fsync(self, fd: int) -> None:
            Slow.syncs += 1
            entered.set()
            assert release.wait(10)
            super().fsync(fd)

    log = opened(layout, Slow(), segment_bytes=1 << 20)
    fill(log, 1)
    threads = [threading.Thread(target=log.sync)]
    threads[0].start()
    assert entered.wait(10)
    fill(log, 9, first=1)
    threads += [threading.Thread(target=log.sync) for _ in range(8)]
    for thread in threads[1:]:
        thread.start()
    release.set()
    for thread in threads:
        thread.join()
    assert Slow.syncs == 2


def test_a_walk_without_the_lock_takes_a_record_that_comes_meanwhile_for_no_damage(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(layout)
    fill(log, 2)
    gap = Log._gap

    def meanwhile(self: Log, at: Position) -> Gap | None:
        if at.seq < 5:
            fill(log, 1, first=at.seq)
        return gap(self, at)

    monkeypatch.setattr(Log, "_gap", meanwhile)
    items = list(Log(layout, Disk()).walk(None))
    assert [item.payload for item in items if isinstance(item, Entry)] == [b"payload %d" % number for number in range(5)]
    assert not any(isinstance(item, Gap) for item in items)
