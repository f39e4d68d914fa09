"""S3Store, patiently, over a wire that breaks: right bytes and right outcomes, late, or an error that says which.

The store is Retrying over S3Store, the server ours; every fault is injected by the front (tests/wire), on about half of the requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from s3mount.errors import AccessDenied, AlreadyExists, Corrupt, StoreError, Throttled, TimedOut, Unavailable
from s3mount.model import Absent, ByteRange, Key
from s3mount.store.api import Commit, ObjectStore, Pin
from s3mount.store.s3.client import open_client
from s3mount.store.s3.store import S3Store, open_s3
from s3mount.store.wrap.retrying import Policy, Retrying
from tests.s3.fronted import BUCKET, GIVING_UP, KIB, LARGE, POLICY, SMALL, Fronted, fronted
from tests.server.serving import ACCESS_KEY, SECRET_KEY
from tests.wire.faults import DENIED, EXPIRED, INTERNAL_ERROR, SLOW_DOWN, Rule

pytestmark = pytest.mark.slow

PIECE = 256 * KIB
OBJECT = Key("large")
NEW = Key("new/object")

# Each on half of the requests. What hangs is bounded by the time-outs of tests.s3.fronted.
BREAKS = {
    "a storm of SlowDown": SLOW_DOWN,
    "internal errors": INTERNAL_ERROR,
    "a reset before the body": Rule("reset", at=0.0),
    "a reset in mid-body": Rule("reset", at=0.4),
    "a reset just before the end": Rule("reset", at=0.999),
    "a body cut off": Rule("truncate", at=0.7),
    "a body that ends before it begins": Rule("truncate", at=0.0),
    "a length too short": Rule("short_length", at=0.5),
    "a length too long": Rule("long_length"),
    "a lost reply": Rule("lost_reply"),
    "a lost request": Rule("lost_request"),
}
HANGS = {"a stall in mid-body": Rule("stall", at=0.5, seconds=20), "silence": Rule("silence", seconds=20)}
READS = {**BREAKS, "a range ignored": Rule("ignore_range")}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    with fronted(tmp_path_factory.mktemp("fronted")) as running:
        yield running


@pytest.fixture
def wire(shared: Fronted) -> Iterator[Fronted]:
    shared.well()
    yield shared
    shared.well()


async def opened(wire: Fronted, monkeypatch: pytest.MonkeyPatch, policy: Policy, *, lane: str = "client", **patience: float) -> ObjectStore:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    options = replace(wire.options, **patience)  # type: ignore[arg-type]
    if lane == "client":
        return Retrying(S3Store(await open_client(options), BUCKET, policy=policy), policy)
    return Retrying(await open_s3(options, BUCKET, policy=policy), policy)


@pytest.fixture
async def store(wire: Fronted, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
    store = await opened(wire, monkeypatch, POLICY)
    yield store
    wire.well()
    await store.aclose()


@pytest.fixture(params=["lane", "client"])
async def changed(request: pytest.FixtureRequest, wire: Fronted, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
    """One that changes by the lane, one by the client alone."""
    store = await opened(wire, monkeypatch, POLICY, lane=request.param)
    yield store
    wire.well()
    await store.aclose()


@pytest.fixture
async def hasty(wire: Fronted, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectStore]:
    """One that gives up after half a second."""
    store = await opened(wire, monkeypatch, GIVING_UP)
    yield store
    wire.well()
    await store.aclose()


async def read(store: ObjectStore, key: Key, start: int, size: int) -> bytes:
    buffer = bytearray(size)
    await store.get_into(key, ByteRange(start, start + size), memoryview(buffer))
    return bytes(buffer)


async def read_in_pieces(store: ObjectStore) -> None:
    """All of the large object, all pieces at once; each must be right."""

    async def one(start: int) -> None:
        assert await read(store, OBJECT, start, PIECE) == LARGE[start : start + PIECE], f"wrong bytes at {start}"

    async with trio.open_nursery() as nursery:
        for start in range(0, len(LARGE), PIECE):
            nursery.start_soon(one, start)


# -- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", READS.values(), ids=READS)
async def test_reads_are_right_however_the_wire_breaks(wire: Fronted, store: ObjectStore, rule: Rule) -> None:
    wire.front.spoil(replace(rule, kinds=("GET", "GET-range"), chance=0.5, seed=3))
    await read_in_pieces(store)
    assert sum(wire.front.counts()["GET-range"].faults.values()) > 2, "nothing was spoiled"


@pytest.mark.parametrize("rule", HANGS.values(), ids=HANGS)
async def test_a_read_that_hangs_is_given_up_and_asked_for_again(wire: Fronted, store: ObjectStore, rule: Rule) -> None:
    wire.front.spoil(replace(rule, kinds=("GET", "GET-range"), times=4))
    with trio.fail_after(60):
        await read_in_pieces(store)
    assert sum(wire.front.counts()["GET-range"].faults.values()) == 4


async def test_one_wrong_bit_in_a_whole_object_is_never_data(wire: Fronted, store: ObjectStore) -> None:
    """Read by a pin, which knows where the object ends; the checksum is the one that its writer (boto3) sent."""
    wire.front.spoil(Rule("flip", kinds=("GET", "GET-range"), times=1))
    pin = await store.pin(OBJECT)
    try:
        assert await read_all(pin) == LARGE
    except Corrupt:
        assert await read_all(pin) == LARGE
    assert wire.front.counts()["all"].faults == {"flip": 1}
    await pin.aclose()


async def read_all(pin: Pin) -> bytes:
    buffer = bytearray(len(LARGE))
    await pin.get_into(0, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (SLOW_DOWN, Throttled),
        (INTERNAL_ERROR, Unavailable),
        (Rule("reset", at=0.5), Unavailable),
        (Rule("truncate", at=0.5), Unavailable),
        (Rule("short_length", at=0.5), Unavailable),
        (Rule("ignore_range"), Unavailable),
        (Rule("lost_request"), Unavailable),
        (Rule("silence", seconds=20), TimedOut),
        (Rule("stall", at=0.5, seconds=20), TimedOut),
    ],
    ids=lambda value: value.code if getattr(value, "fault", "") == "answer" else getattr(value, "fault", ""),
)
async def test_what_does_not_pass_is_reported_as_what_it_is(wire: Fronted, hasty: ObjectStore, rule: Rule, error: type[StoreError]) -> None:
    wire.front.spoil(rule)
    with pytest.raises(error), trio.fail_after(60):
        await read(hasty, OBJECT, 1000, PIECE)


@pytest.mark.parametrize("rule", [EXPIRED, DENIED], ids=["expired", "denied"])
async def test_credentials_that_run_out_in_mid_read_are_reported_at_once_and_may_return(
    wire: Fronted, store: ObjectStore, rule: Rule
) -> None:
    assert await read(store, OBJECT, 0, PIECE) == LARGE[:PIECE]
    wire.front.spoil(rule)
    wire.front.reset()
    with pytest.raises(AccessDenied):
        await read(store, OBJECT, PIECE, PIECE)
    assert wire.front.counts().total <= 2
    wire.front.spoil()
    assert await read(store, OBJECT, PIECE, PIECE) == LARGE[PIECE : 2 * PIECE]


async def test_an_endpoint_that_goes_away_and_comes_back_costs_time_only(wire: Fronted, store: ObjectStore) -> None:
    wire.front.set(rate=4e6)

    async def outage() -> None:
        await trio.sleep(0.1)
        await trio.to_thread.run_sync(wire.front.away)
        await trio.sleep(1.5)
        await trio.to_thread.run_sync(wire.front.back)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outage)
        nursery.start_soon(read_in_pieces, store)


async def test_an_endpoint_that_stays_away_is_unavailable(wire: Fronted, hasty: ObjectStore) -> None:
    wire.front.away()
    with pytest.raises(Unavailable, match="listens"):
        await read(hasty, OBJECT, 0, PIECE)


async def test_reads_over_tls_are_right_however_the_wire_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fronted(tmp_path, tls=True) as wire:
        store = await opened(wire, monkeypatch, POLICY)
        for fault in ("reset", "truncate", "stall", "lost_request", "lost_reply"):
            wire.front.spoil(Rule(fault, kinds=("GET", "GET-range"), at=0.5, seconds=20, times=3))
            await read_in_pieces(store)
        assert wire.front.counts()["all"].faults == dict.fromkeys(("reset", "truncate", "stall", "lost_request", "lost_reply"), 3)
        await store.aclose()


# -- looking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", BREAKS.values(), ids=BREAKS)
async def test_listings_and_attributes_are_right_however_the_wire_breaks(wire: Fronted, store: ObjectStore, rule: Rule) -> None:
    """A HEAD's length may not lie: nothing could tell."""
    kinds = ("LIST",) if rule.fault.endswith("_length") else ("LIST", "HEAD")
    wire.front.spoil(replace(rule, kinds=kinds, chance=0.4, seed=5))
    keys: list[str] = []
    after = ""
    while True:
        page = await store.list("small/", after=after, limit=7)
        keys += [info.key for info in page.objects]
        if page.next is None:
            break
        after = page.next
    assert keys == list(SMALL)
    for key, body in list(SMALL.items())[:3]:
        assert (await store.head(Key(key))).size == len(body)


# -- changing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", BREAKS.values(), ids=BREAKS)
async def test_a_put_has_happened_when_it_returns(wire: Fronted, changed: ObjectStore, rule: Rule) -> None:
    wire.front.spoil(replace(rule, kinds=("PUT",), times=2))
    body = LARGE[: 64 * KIB]
    info = await changed.put(NEW, body)
    assert wire.body(NEW) == body
    assert wire.direct.head_object(Bucket=BUCKET, Key=NEW)["ETag"].strip('"') == info.etag


async def test_a_put_whose_reply_was_lost_is_found_and_not_repeated(wire: Fronted, changed: ObjectStore) -> None:
    wire.front.spoil(Rule("lost_reply", kinds=("PUT",), times=1))
    await changed.put(NEW, b"once", Commit(condition=Absent()))
    assert wire.front.counts()["PUT"].requests == 1
    assert wire.body(NEW) == b"once"


async def test_a_key_that_somebody_else_took_while_the_reply_was_lost_is_theirs(wire: Fronted, changed: ObjectStore) -> None:
    wire.direct.put_object(Bucket=BUCKET, Key=NEW, Body=b"theirs")
    wire.front.spoil(Rule("lost_reply", kinds=("PUT",), times=1))
    with pytest.raises(AlreadyExists):
        await changed.put(NEW, b"ours", Commit(condition=Absent()))
    assert wire.body(NEW) == b"theirs"


async def test_a_body_that_breaks_off_on_its_way_up_leaves_nothing_and_is_sent_again(wire: Fronted, changed: ObjectStore) -> None:
    wire.front.spoil(Rule("reset_upload", kinds=("PUT",), times=2))
    await changed.put(NEW, LARGE)
    assert wire.body(NEW) == LARGE


@pytest.mark.parametrize("fault", ["lost_reply", "lost_request"])
async def test_a_delete_and_a_copy_happen_whatever_becomes_of_their_replies(wire: Fronted, changed: ObjectStore, fault: str) -> None:
    wire.front.spoil(Rule(fault, kinds=("COPY",), times=1))
    await changed.copy(Key("small/001"), NEW)
    assert wire.body(NEW) == SMALL["small/001"]
    wire.front.spoil(Rule(fault, kinds=("DELETE",), times=1))
    await changed.delete(NEW)
    assert "Contents" not in wire.direct.list_objects_v2(Bucket=BUCKET, Prefix=NEW)


@pytest.mark.parametrize("fault", ["lost_reply", "lost_request"])
@pytest.mark.parametrize("kind", ["CreateUpload", "UploadPart", "Complete"])
async def test_a_multipart_upload_survives_a_loss_at_each_step(wire: Fronted, changed: ObjectStore, kind: str, fault: str) -> None:
    wire.front.spoil(Rule(fault, kinds=(kind,), times=1))
    upload = await changed.create_upload(NEW)
    part = await changed.put_part(upload, 1, LARGE)
    await changed.complete_upload(upload, [part])
    assert wire.body(NEW) == LARGE


@pytest.mark.parametrize("at", [0.0, 0.4, 0.99])
async def test_a_part_that_breaks_off_on_its_way_up_is_sent_again(wire: Fronted, changed: ObjectStore, at: float) -> None:
    upload = await changed.create_upload(NEW)
    wire.front.spoil(Rule("reset_upload", kinds=("UploadPart",), at=at, times=2))
    part = await changed.put_part(upload, 1, LARGE)
    await changed.complete_upload(upload, [part])
    assert wire.body(NEW) == LARGE


async def test_a_body_is_refused_before_it_has_left(wire: Fronted, changed: ObjectStore) -> None:
    """The front answers without reading on; a line of 1 MB/s would take three seconds for the body."""
    wire.front.spoil(DENIED)
    with pytest.raises(AccessDenied):
        await changed.put(NEW, LARGE)
    wire.front.spoil()
    await changed.put(NEW, LARGE)
    assert wire.body(NEW) == LARGE


@pytest.mark.parametrize("lane", ["lane", "client"])
async def test_a_put_on_a_slow_line_takes_its_time(wire: Fronted, monkeypatch: pytest.MonkeyPatch, lane: str) -> None:
    """Five seconds of body, where an answer may take three: that time begins when the body is there."""
    async with aclosing(await opened(wire, monkeypatch, POLICY, lane=lane, first_byte_s=3.0, stall_s=3.0)) as changed:
        wire.front.set(rate=6e5)
        await changed.put(NEW, LARGE)
    assert wire.front.counts()["PUT"].requests == 1
    assert wire.body(NEW) == LARGE
