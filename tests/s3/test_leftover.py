"""No multipart upload of ours outlives its process for longer than to the next mount; nobody else's is touched."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from s3mount.errors import AccessDenied, OutcomeUnknown
from s3mount.model import Key, Upload
from s3mount.store.api import ObjectStore
from s3mount.store.s3.begun import SUFFIX, Begun, Ledger
from s3mount.store.s3.client import Answer
from s3mount.store.s3.replies import said_at
from s3mount.store.s3.store import S3Store, open_s3
from s3mount.store.wrap.retrying import Retrying
from tests.conftest import ExpectLogs
from tests.s3.fronted import BUCKET, GIVING_UP, POLICY, Fronted, fronted
from tests.server.serving import ACCESS_KEY, SECRET_KEY
from tests.wire.faults import DENIED, Rule

pytestmark = pytest.mark.slow

K = Key("new/up loaded+ü")
LOST_REPLY = Rule("lost_reply", kinds=("CreateUpload",), times=1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    with fronted(tmp_path_factory.mktemp("fronted")) as running:
        yield running


@pytest.fixture
def wire(shared: Fronted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fronted]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    shared.well()
    yield shared
    shared.well()
    for one in uploads(shared):
        shared.direct.abort_multipart_upload(Bucket=BUCKET, Key=K, UploadId=one)


@asynccontextmanager
async def opened(wire: Fronted, folder: Path) -> AsyncIterator[S3Store]:
    """As a process of its own would: what it leaves when the context ends is another's to find."""
    store = await open_s3(wire.options, BUCKET, policy=GIVING_UP, begun=folder / "uploads")
    try:
        yield store
    finally:
        await store.aclose()


def uploads(wire: Fronted) -> set[str]:
    return {entry["UploadId"] for entry in wire.direct.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())}


def foreign(wire: Fronted) -> str:
    """Somebody else begins an upload of the same key."""
    begun: str = wire.direct.create_multipart_upload(Bucket=BUCKET, Key=K)["UploadId"]
    return begun


def files(folder: Path) -> list[str]:
    return [path.name for path in (folder / "uploads").iterdir()]


async def test_what_a_dead_process_began_is_aborted_and_nothing_else(wire: Fronted, tmp_path: Path) -> None:
    others = foreign(wire)
    async with opened(wire, tmp_path) as dead:
        await dead.put_part(await dead.create_upload(K), 1, b"data")
    assert len(uploads(wire)) == 2
    async with opened(wire, tmp_path) as store:
        assert await store.sweep() == 1
        assert uploads(wire) == {others}
        assert files(tmp_path) == []
        wire.front.reset()
        assert await store.sweep() == 0
        assert wire.front.counts().total == 0, "nothing was left, nothing is asked"


async def test_what_another_process_works_on_is_left_to_it(wire: Fronted, tmp_path: Path) -> None:
    async with opened(wire, tmp_path) as busy, opened(wire, tmp_path) as store:
        upload = await busy.create_upload(K)
        assert await store.sweep() == 0
        part = await busy.put_part(upload, 1, b"data")
        await busy.complete_upload(upload, [part])
        assert files(tmp_path) == []
    assert wire.body(K) == b"data"


async def test_an_upload_that_ends_is_written_down_no_longer(wire: Fronted, tmp_path: Path) -> None:
    async with opened(wire, tmp_path) as store:
        upload = await store.create_upload(K)
        assert len(files(tmp_path)) == 1
        await store.abort_upload(upload)
        assert files(tmp_path) == []
        wire.front.spoil(DENIED)
        with pytest.raises(AccessDenied):
            await store.create_upload(K)
        assert files(tmp_path) == []


async def test_a_creation_that_is_given_up_when_it_has_happened_is_told(
    wire: Fronted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: cancelled between the answer and its being written down, it left an upload until the next mount."""
    told: list[Upload] = []
    with trio.CancelScope() as scope:

        def heard(answer: Answer) -> int:
            scope.cancel()
            return said_at(answer)

        monkeypatch.setattr("s3mount.store.s3.multipart.said_at", heard)
        async with opened(wire, tmp_path) as store:
            try:
                told.append(await store.create_upload(K))
            finally:
                with trio.CancelScope(shield=True):
                    for upload in told:
                        await store.abort_upload(upload)
    assert (uploads(wire), files(tmp_path)) == (set(), [])


async def test_a_creation_whose_reply_was_lost_leaves_no_upload(wire: Fronted, tmp_path: Path) -> None:
    async with opened(wire, tmp_path) as store:
        wire.front.spoil(LOST_REPLY)
        patient: ObjectStore = Retrying(store, POLICY)
        upload = await patient.create_upload(K)
        assert wire.front.counts()["CreateUpload"].requests == 2
        assert uploads(wire) == {upload.upload_id}


async def test_a_creation_that_was_never_heard_leaves_others_alone(wire: Fronted, tmp_path: Path) -> None:
    others = foreign(wire)
    wire.direct.upload_part(Bucket=BUCKET, Key=K, UploadId=others, PartNumber=1, Body=b"theirs")
    async with opened(wire, tmp_path) as store:
        wire.front.spoil(Rule("lost_request", kinds=("CreateUpload",), times=1))
        with pytest.raises(OutcomeUnknown):
            await store.create_upload(K)
        assert files(tmp_path) == []
    assert uploads(wire) == {others}


async def test_what_has_parts_already_is_not_what_nobody_heard_of(wire: Fronted, tmp_path: Path) -> None:
    others = foreign(wire)
    wire.direct.upload_part(Bucket=BUCKET, Key=K, UploadId=others, PartNumber=1, Body=b"theirs")
    async with opened(wire, tmp_path) as store:
        wire.front.spoil(LOST_REPLY)
        with pytest.raises(OutcomeUnknown):
            await store.create_upload(K)
    assert uploads(wire) == {others}


async def test_of_two_that_may_be_ours_neither_is_touched(wire: Fronted, tmp_path: Path) -> None:
    async with opened(wire, tmp_path) as store:
        others = foreign(wire)
        wire.front.spoil(LOST_REPLY)
        with pytest.raises(OutcomeUnknown):
            await store.create_upload(K)
    assert others in uploads(wire)
    assert len(uploads(wire)) == 2


async def test_an_upload_of_another_mount_of_this_machine_is_known_as_its(wire: Fronted, tmp_path: Path) -> None:
    async with opened(wire, tmp_path) as busy, opened(wire, tmp_path) as store:
        theirs = await busy.create_upload(K)
        wire.front.spoil(LOST_REPLY)
        with pytest.raises(OutcomeUnknown):
            await store.create_upload(K)
        assert uploads(wire) == {theirs.upload_id}


async def test_what_cannot_be_settled_now_is_settled_by_the_next_mount(wire: Fronted, tmp_path: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("the next mount looks again")
    async with opened(wire, tmp_path) as store:
        wire.front.spoil(LOST_REPLY, Rule("answer", kinds=("other", "LIST"), status=503))
        with pytest.raises(OutcomeUnknown):
            await store.create_upload(K)
        assert len(uploads(wire)) == len(files(tmp_path)) == 1
        assert await store.sweep() == 0
    wire.front.spoil()
    async with opened(wire, tmp_path) as store:
        assert await store.sweep() == 1
    assert uploads(wire) == set()
    assert files(tmp_path) == []


async def test_creations_whose_replies_were_lost_one_after_the_other_leave_no_upload(
    wire: Fronted, tmp_path: Path, expect_logs: ExpectLogs
) -> None:
    """Regression: when the second was looked for, two looked alike, and both stayed for ever."""
    expect_logs("the next mount looks again")
    twice = replace(LOST_REPLY, times=2)
    async with opened(wire, tmp_path) as store:
        wire.front.spoil(twice, Rule("answer", kinds=("other", "LIST"), status=503))
        with pytest.raises(OutcomeUnknown):
            await store.create_upload(K)
        wire.front.spoil(LOST_REPLY)
        with pytest.raises(OutcomeUnknown):
            await store.create_upload(K)
        assert (uploads(wire), files(tmp_path)) == (set(), [])
        wire.front.spoil(twice, Rule("answer", kinds=("other", "LIST"), status=503))
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await store.create_upload(K)
        assert len(uploads(wire)) == 2
        wire.front.spoil()
    assert (uploads(wire), files(tmp_path)) == (set(), []), "they are looked for once more at the end"


async def test_what_another_process_is_just_asking_for_is_not_what_was_lost(wire: Fronted, tmp_path: Path) -> None:
    theirs = Ledger(tmp_path / "uploads").begin(K)
    begun = foreign(wire)
    async with opened(wire, tmp_path) as store:
        wire.front.spoil(LOST_REPLY)
        with pytest.raises(OutcomeUnknown):
            await store.create_upload(K)
        theirs.named(begun)
        assert len(uploads(wire)) == 2
    assert uploads(wire) == {begun}
    theirs.leave()


async def test_what_was_killed_before_it_heard_the_name_is_found_by_its_time(wire: Fronted, tmp_path: Path) -> None:
    Ledger(tmp_path / "uploads").begin(K).leave()
    foreign(wire)
    async with opened(wire, tmp_path) as store:
        assert await store.sweep() == 1
    assert uploads(wire) == set()


async def test_an_upload_of_another_hour_is_not_what_was_killed(wire: Fronted, tmp_path: Path) -> None:
    Ledger(tmp_path / "uploads").begin(K).leave()
    (file,) = (tmp_path / "uploads").iterdir()
    said, key, sent_ns = json.loads(file.read_bytes())
    file.write_bytes(json.dumps([said, key, sent_ns - 3600 * 10**9]).encode() + b"\n")
    others = foreign(wire)
    async with opened(wire, tmp_path) as store:
        assert await store.sweep() == 0
    assert uploads(wire) == {others}
    assert files(tmp_path) == []


async def test_a_cancelled_creation_is_settled_by_the_next_mount(wire: Fronted, tmp_path: Path) -> None:
    async with opened(wire, tmp_path) as store:
        wire.front.spoil(Rule("late", kinds=("CreateUpload",), seconds=100))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.create_upload, K)
            while not uploads(wire):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        wire.front.spoil()
    async with opened(wire, tmp_path) as store:
        assert await store.sweep() == 1
    assert uploads(wire) == set()


async def test_a_folder_that_cannot_be_written_costs_the_record_and_not_the_upload(
    wire: Fronted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "uploads").write_text("a file")
    async with opened(wire, tmp_path) as store:
        for _ in range(2):
            await store.abort_upload(await store.create_upload(K))
    assert sum("not written down" in line for line in caplog.messages) == 1


def test_a_file_that_is_none_stays_and_a_cut_off_line_was_never_said(tmp_path: Path, expect_logs: ExpectLogs) -> None:
    expect_logs("does not tell of an upload")
    ledger = Ledger(tmp_path)
    begun = ledger.begin(K)
    begun.named("the-id")
    begun.leave()
    (tmp_path / f"other{SUFFIX}").write_text("[2, 3]\n")
    (file,) = (path for path in tmp_path.iterdir() if not path.name.startswith("other"))
    assert [(one.key, one.upload_id) for one in left(ledger)] == [(K, "the-id")]
    file.write_bytes(file.read_bytes()[:-1])
    assert [(one.key, one.upload_id) for one in left(ledger)] == [(K, None)]
    assert ledger.known() == set()
    assert len(list(tmp_path.iterdir())) == 2


def left(ledger: Ledger) -> list[Begun]:
    found = list(ledger.left_over())
    for one in found:
        one.leave()
    return found


def test_one_process_at_a_time_settles_what_was_left(tmp_path: Path) -> None:
    Ledger(tmp_path).begin(K).leave()
    (mine,) = Ledger(tmp_path).left_over()
    assert list(Ledger(tmp_path).left_over()) == []
    mine.done()
    mine.done()
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_written_down(tmp_path: Path) -> None:
    ledger = Ledger(None)
    begun = ledger.begin(K)
    begun.named("id")
    begun.done()
    assert (list(ledger.left_over()), ledger.known()) == ([], set())
