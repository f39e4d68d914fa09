"""What is fetched for a read, as tables: no store, no memory, no time."""

from __future__ import annotations

import itertools
import random

import pytest

from s3mount.cache.streams import FIRST, STREAMS, TAIL, WINDOW, Plan, Shape, Stream, Streams
from s3mount.model import ByteRange, GiB, KiB, MiB

SHAPE = Shape()
SIZE = 1 * GiB
READ = 128 * KiB


def plenty(stream: Stream) -> int:
    return WINDOW


def streams(size: int = SIZE, shape: Shape = SHAPE) -> Streams:
    return Streams(size, shape)


def read(of: Streams, offset: int, size: int = READ, *, room: int = WINDOW, waits: bool = True) -> Plan:
    plan = of.read(offset, offset + size, lambda stream: room, waits=waits)
    of.check()
    return plan


def read_on(of: Streams, start: int, stop: int, *, room: int = WINDOW) -> list[Plan]:
    return [read(of, offset, room=room) for offset in range(start, stop, READ)]


@pytest.mark.parametrize(
    ("size", "offset", "length", "start", "stop"),
    [
        (SIZE, 0, READ, 0, FIRST),  # the beginning: more than asked, but soon there
        (SIZE, 0, 4 * KiB, 0, FIRST),
        (SIZE, 0, 2 * MiB, 0, 2 * MiB),  # never less than asked
        (SIZE, SIZE // 2, 4 * KiB, SIZE // 2, SIZE // 2 + 4 * KiB),  # anywhere: what is asked
        (SIZE, SIZE // 2 + 100, 10, SIZE // 2, SIZE // 2 + 4 * KiB),  # in pages
        (SIZE, SIZE // 2 + 4090, 10, SIZE // 2, SIZE // 2 + 8 * KiB),
        (SIZE, SIZE - 8, 8, SIZE - TAIL, SIZE),  # a footer, and what it points to
        (SIZE - 3, SIZE - 25, 22, SIZE - 3 - TAIL, SIZE - 3),
        (SIZE, SIZE - 1 * MiB, 4 * KiB, SIZE - 1 * MiB, SIZE - 1 * MiB + 4 * KiB),  # not a footer yet
        (30_000, 0, 30_000, 0, 30_000),  # a small file: whole
        (FIRST, 500_000, 4 * KiB, 0, FIRST),
        (5000, 4999, 1, 0, 5000),
    ],
)
def test_a_first_read_fetches_what_its_place_tells(size: int, offset: int, length: int, start: int, stop: int) -> None:
    plan = read(streams(size), offset, length)

    assert plan.need == ByteRange(start, stop)
    assert plan.ahead == ()


def test_the_window_of_a_whole_file_read_opens_to_all_connections_within_a_few_reads() -> None:
    of = streams()
    reach = [max([plan.need.stop, *(span.stop for span in plan.ahead)]) for plan in read_on(of, 0, 9 * MiB)]

    assert reach[0] == FIRST
    assert max(reach[:3]) > 8 * MiB
    assert max(reach[:9]) >= 32 * MiB
    assert max(reach) >= WINDOW


def test_requests_grow_with_the_window_and_are_cut_at_multiples_of_their_size() -> None:
    of = streams()
    spans = [span for plan in read_on(of, 0, 64 * MiB) for span in plan.ahead]

    assert spans[0].length <= 1 * MiB
    assert spans[-1].length == SHAPE.request
    assert all(span.stop % min(span.length, 1 * MiB) == 0 for span in spans)
    assert all(one.stop == other.start for one, other in itertools.pairwise(spans))
    assert len(spans) < 8 + 16 + 40


def test_a_reader_that_never_waits_gets_a_small_window() -> None:
    of = streams()
    read_on(of, 0, 1 * MiB)
    spans = [span for offset in range(1 * MiB, 64 * MiB, READ) for span in read(of, offset, waits=False).ahead]

    assert spans[-1].stop <= 64 * MiB + 32 * MiB + SHAPE.request


def test_a_window_keeps_within_the_room_there_is() -> None:
    of = streams()
    for offset in range(0, 64 * MiB, READ):
        plan = read(of, offset, room=2 * MiB)
        for span in plan.ahead:
            assert span.stop <= offset + READ + 2 * MiB + 1 * MiB


def test_a_window_shrinks_when_the_room_does() -> None:
    of = streams()
    read_on(of, 0, 16 * MiB)
    plan = read(of, 16 * MiB, room=4 * MiB)

    assert plan.ahead == ()
    assert plan.stream.window == 4 * MiB
    assert plan.drop == plan.stream.at + 8 * MiB


def test_requests_that_arrive_slightly_out_of_order_are_one_stream() -> None:
    of = streams()
    offsets = [0, 2, 1, 3, 5, 4, 7, 6, 8, 9, 11, 10]
    plans = [read(of, offset * READ) for offset in offsets]

    assert len({id(plan.stream) for plan in plans}) == 1
    assert plans[-1].stream.sure


def test_a_stream_goes_on_behind_a_short_skip_and_a_short_step_back() -> None:
    of = streams()
    stream = read_on(of, 0, 4 * MiB)[-1].stream

    assert read(of, 5 * MiB).stream is stream
    assert read(of, 4 * MiB + 512 * KiB).stream is stream
    assert read(of, 6 * MiB).stream is stream
    assert stream.sure


def test_random_reads_fetch_what_is_asked_and_no_more() -> None:
    of = streams()
    rng = random.Random(4)
    fetched = 0
    for _ in range(2000):
        plan = read(of, rng.randrange(SIZE // 4096) * 4096, 4 * KiB)
        fetched += plan.need.length + sum(span.length for span in plan.ahead)

    assert fetched <= 2 * 2000 * 4 * KiB


def test_random_reads_on_a_file_that_was_streamed_before_stop_the_streaming() -> None:
    of = streams()
    read_on(of, 0, 64 * MiB)
    rng = random.Random(5)
    plans = [read(of, rng.randrange(SIZE // 4096) * 4096, 4 * KiB) for _ in range(1000)]

    assert sum(plan.need.length + sum(span.length for span in plan.ahead) for plan in plans[100:]) <= 3 * 900 * 4 * KiB


def test_streaming_begins_again_when_random_reads_turn_sequential() -> None:
    of = streams()
    rng = random.Random(6)
    for _ in range(500):
        read(of, rng.randrange(SIZE // 4096) * 4096, 4 * KiB)
    spans = [span for plan in read_on(of, 512 * MiB, 530 * MiB) for span in plan.ahead]

    assert spans[-1].stop >= 530 * MiB + 64 * MiB


def test_several_streams_in_one_file_are_told_apart() -> None:
    of = streams()
    starts = [number * 128 * MiB for number in range(8)]
    for step in range(64):
        plans = [read(of, start + step * READ) for start in starts]

    assert len({id(plan.stream) for plan in plans}) == 8
    assert all(plan.stream.sure for plan in plans)


def test_streams_that_were_not_used_for_long_are_forgotten() -> None:
    of = streams()
    first = read(of, 0).stream
    forgotten = [read(of, 100 * MiB + number * 50 * MiB).forgotten for number in range(STREAMS)]

    assert forgotten == [None] * (STREAMS - 1) + [first]
    assert first not in of


def test_reading_backwards_fetches_nothing_ahead() -> None:
    of = streams()
    plans = [read(of, offset) for offset in range(SIZE - 8 * MiB, SIZE - 16 * MiB, -READ)]

    assert all(plan.ahead == () for plan in plans)


def test_no_plan_leaves_the_version_or_its_read() -> None:
    rng = random.Random(7)
    for size in (1, 4095, FIRST, FIRST + 1, 5 * MiB + 17, 40 * MiB):
        of = streams(size)
        at = 0
        for _ in range(600):
            at = at if rng.random() < 0.8 and at < size else rng.randrange(size)
            stop = min(size, at + rng.choice([1, 4096, READ, 1 * MiB]))
            plan = of.read(at, stop, lambda stream: rng.choice([1, 100 * KiB, 3 * MiB, WINDOW]), waits=rng.random() < 0.5)
            of.check()
            assert plan.need.start <= at
            assert stop <= plan.need.stop <= size
            assert all(span.stop <= size for span in plan.ahead)
            at = stop
