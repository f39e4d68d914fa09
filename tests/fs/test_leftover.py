"""What no commit took: handed over whole when its file is given up or the mount ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
import trio.testing

from s3mount.errors import AccessDenied, NoSpace, OutcomeUnknown, Stale, StoreError
from s3mount.fs.kept import Uncommitted
from s3mount.model import Absent, Kept, Key, Matches, MiB, Staged
from s3mount.store.api import EVERYTHING
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.wrap.base import Kind, Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty
from tests.conftest import ExpectLogs
from tests.fs.mounted import Mounted, body

KEPT_LINE = "is kept aside"


class Hands:
    """Keeps what it is given in memory; or refuses."""

    def __init__(self, refuse: StoreError | None = None) -> None:
        self.kept: list[Uncommitted] = []
        self.bytes: list[bytes] = []
        self.refuse = refuse

    async def __call__(self, uncommitted: Uncommitted) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuse is not None:
            raise self.refuse
        whole = bytearray(uncommitted.content.size)
        for piece in uncommitted.content.pieces:
            if isinstance(piece, Staged):
                piece.source.read_into(piece.position, memoryview(whole)[piece.offset : piece.offset + piece.length])
        self.kept.append(uncommitted)
        self.bytes.append(bytes(whole))

    @property
    def only(self) -> Uncommitted:
        (one,) = self.kept
        return one

    @property
    def only_bytes(self) -> bytes:
        """The staged ones, zeros for all else."""
        (one,) = self.bytes
        return one


@pytest.fixture(params=["everything", "like S3"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore(EVERYTHING if request.param == "everything" else LIKE_S3)


@pytest.fixture
def hands() -> Hands:
    return Hands()


def refusing(reason: str = "No.") -> Callable[[Op], Fault]:
    return lambda op: Fault(before=AccessDenied(reason)) if op.kind is Kind.COMMIT else NOTHING


# -- when it is handed over -----------------------------------------------------------------


async def test_an_edit_of_what_somebody_replaced_is_kept_whole_when_its_last_handle_goes(
    store: MemoryStore, hands: Hands, expect_logs: ExpectLogs
) -> None:
    expect_logs(KEPT_LINE)
    mount = Mounted(store, keep=hands)
    base = bytes(range(256)) * 1000
    await store.put(Key("a"), base)
    fh = await mount.open("a")
    assert bytes(await mount.fs.read(fh, 0, len(base))) == base
    await mount.fs.write(fh, 1000, b"edit")
    await store.another().put(Key("a"), b"theirs")
    with pytest.raises(Stale):
        await mount.close(fh)
    file = hands.only
    assert (file.key, file.content.size) == ("a", len(base))
    assert file.commit.condition is not None
    assert "replaced" in file.reason
    assert mount.fs.outstanding().kept == 1
    assert await mount.read("a") == b"theirs"
    if store.capabilities.versions:
        assert hands.only_bytes == base[:1000] + b"edit" + base[1004:]
    else:
        # Nobody has the rest any more: the record says how much that is, and of which version.
        assert [type(piece) for piece in file.content.pieces] == [Kept, Staged, Kept]
        assert file.content.base is not None
    await mount.fs.aclose()


async def test_a_file_that_was_being_retried_is_kept_when_the_mount_ends(store: MemoryStore, hands: Hands, expect_logs: ExpectLogs) -> None:
    expect_logs(KEPT_LINE)
    mount = Mounted(Faulty(store, refusing("Not with these rights.")), keep=hands)
    fh = await mount.create("dir-less", mode=0o640)
    await mount.fs.write(fh, 0, b"precious")
    with pytest.raises(AccessDenied):
        await mount.close(fh)
    (waiting,) = mount.fs.outstanding().waiting
    assert (waiting.key, waiting.size, waiting.reason, waiting.tries) == ("dir-less", 8, "Not with these rights.", 2)
    assert waiting.since_ns > 0
    with pytest.raises(AccessDenied):
        await mount.fs.aclose()
    file = hands.only
    assert hands.only_bytes == b"precious"
    assert file.reason == "Not with these rights."
    assert file.commit.metadata["mode"] == str(0o100640)
    assert mount.fs.outstanding().kept == 1


async def test_what_a_commit_took_at_last_is_not_kept(store: MemoryStore, hands: Hands) -> None:
    refused = [True]
    faulty = Faulty(store, lambda op: refusing()(op) if refused[0] else NOTHING)
    mount = Mounted(faulty, keep=hands)
    fh = await mount.create("a")
    await mount.fs.write(fh, 0, b"precious")
    with pytest.raises(AccessDenied):
        await mount.fs.flush(fh)
    refused[0] = False
    await mount.fs.release(fh)
    assert mount.fs.outstanding().waiting == ()
    await mount.fs.aclose()
    assert await body(store, "a") == b"precious"
    assert hands.kept == []


async def test_what_was_removed_while_it_waited_is_not_kept(store: MemoryStore, hands: Hands) -> None:
    mount = Mounted(Faulty(store, refusing()), keep=hands)
    fh = await mount.create("a")
    await mount.fs.write(fh, 0, b"x")
    with pytest.raises(AccessDenied):
        await mount.close(fh)
    await mount.unlink("a")
    await mount.fs.aclose()
    assert hands.kept == []


async def test_a_mount_that_is_stopped_at_once_keeps_what_is_open(store: MemoryStore, hands: Hands, expect_logs: ExpectLogs) -> None:
    """As after a second signal: nothing is sent any more, and nothing is lost."""
    expect_logs(KEPT_LINE)
    mount = Mounted(store, keep=hands)
    fh = await mount.create("a")
    await mount.fs.write(fh, 0, b"open")
    with trio.CancelScope() as scope:
        scope.cancel()
        await mount.fs.aclose()
    file = hands.only
    assert (hands.only_bytes, file.reason) == (b"open", "The mount ended before it was committed.")


async def test_a_request_whose_outcome_is_unknown_is_kept_with_its_id(store: MemoryStore, hands: Hands, expect_logs: ExpectLogs) -> None:
    expect_logs(KEPT_LINE)

    def gone(op: Op) -> Fault:
        return Fault(after=OutcomeUnknown("Lost.")) if op.kind is Kind.COMMIT else Fault(before=OutcomeUnknown("Lost."))

    lost = [False]
    mount = Mounted(Faulty(store, lambda op: gone(op) if lost[0] else NOTHING), keep=hands)
    fh = await mount.create("a")
    await mount.fs.write(fh, 0, b"x")
    lost[0] = True
    with pytest.raises(OutcomeUnknown):
        await mount.close(fh)
    with pytest.raises((OutcomeUnknown, ExceptionGroup)):
        await mount.fs.aclose()
    file = hands.only
    head = await store.head(Key("a"))
    assert head.metadata is not None
    assert file.commit.commit_id == head.metadata["s3mount-commit"]


async def test_bytes_behind_a_request_whose_outcome_is_unknown_are_not_kept_under_its_id(
    store: MemoryStore, hands: Hands, expect_logs: ExpectLogs
) -> None:
    """Regression: a retry found the id in the store, took all that was kept for stored, and removed it."""
    expect_logs(KEPT_LINE)
    lost = [False]

    def gone(op: Op) -> Fault:
        if not lost[0]:
            return NOTHING
        return Fault(after=OutcomeUnknown("Lost.")) if op.kind is Kind.COMMIT else Fault(before=OutcomeUnknown("Lost."))

    mount = Mounted(Faulty(store, gone), keep=hands)
    fh = await mount.create("a")
    await mount.fs.write(fh, 0, b"first")
    lost[0] = True
    with pytest.raises(OutcomeUnknown):
        await mount.fs.flush(fh)
    await mount.fs.write(fh, 5, b" and more")
    with pytest.raises(OutcomeUnknown):
        await mount.close(fh)
    with pytest.raises((OutcomeUnknown, ExceptionGroup)):
        await mount.fs.aclose()
    assert (await body(store, "a"), hands.only_bytes) == (b"first", b"first and more")
    assert hands.only.commit.commit_id == ""


@pytest.mark.parametrize("there", [True, False])
async def test_what_replaces_all_of_a_file_is_kept_for_the_version_that_was_there(
    store: MemoryStore, hands: Hands, expect_logs: ExpectLogs, there: bool
) -> None:
    """Regression: it was kept without a condition, and a retry days later replaced what somebody had written since."""
    expect_logs(KEPT_LINE)
    before = await store.put(Key("a"), b"before") if there else None
    mount = Mounted(Faulty(store, refusing()), keep=hands)
    with pytest.raises(AccessDenied):
        await mount.write("a", b"precious")
    with pytest.raises(AccessDenied):
        await mount.fs.aclose()
    assert hands.only_bytes == b"precious"
    assert hands.only.commit.condition == (Matches(before.etag) if before else Absent())


async def test_where_it_cannot_be_kept_either_the_log_says_both_reasons(store: MemoryStore, expect_logs: ExpectLogs) -> None:
    expect_logs(r"given up uncommitted: Denied\. It could not be kept either: Full\.")
    mount = Mounted(Faulty(store, refusing("Denied.")), keep=Hands(NoSpace("Full.")))
    fh = await mount.create("a")
    await mount.fs.write(fh, 0, b"x")
    with pytest.raises(AccessDenied):
        await mount.close(fh)
    with pytest.raises(AccessDenied):
        await mount.fs.aclose()


async def test_what_cannot_be_kept_aside_stays_with_the_mount_until_it_can(
    store: MemoryStore, hands: Hands, expect_logs: ExpectLogs
) -> None:
    """Regression: where the local disk was full, too, its bytes were gone with its last handle."""
    expect_logs(KEPT_LINE, "could not be kept either")
    mount = Mounted(store, keep=hands)
    await store.put(Key("a"), b"before")
    fh = await mount.open("a")
    await mount.fs.write(fh, 0, b"precious")
    await store.another().put(Key("a"), b"theirs")
    hands.refuse = NoSpace("Full.")
    with pytest.raises(Stale):
        await mount.close(fh)
    assert [one.key for one in mount.fs.outstanding().waiting] == ["a"]
    hands.refuse = None
    assert list(await mount.fs.retry(["a"])) == ["a"]
    assert hands.only_bytes == b"precious"
    assert mount.fs.outstanding().waiting == ()
    assert await mount.read("a") == b"theirs"
    await mount.fs.aclose()


# -- while the mount lives --------------------------------------------------------------------


async def refused_file(mount: Mounted, key: str) -> None:
    fh = await mount.create(key)
    await mount.fs.write(fh, 0, b"precious")
    with pytest.raises(AccessDenied):
        await mount.close(fh)


async def test_what_waits_is_tried_again_on_demand(store: MemoryStore) -> None:
    refused = {"a", "b", "c"}
    mount = Mounted(Faulty(store, lambda op: refusing()(op) if op.key in refused else NOTHING))
    for key in sorted(refused):
        await refused_file(mount, key)
    refused.discard("a")
    refused.discard("c")
    assert await mount.fs.retry(["a", "b"]) == {"b": "No."}
    assert [one.key for one in mount.fs.outstanding().waiting] == ["b", "c"]
    assert await body(store, "a") == b"precious"
    await mount.fs.discard(["b"])
    await mount.fs.aclose()


async def test_what_waits_is_discarded_on_demand_and_what_has_its_name_shows_again(store: MemoryStore) -> None:
    await store.put(Key("old"), b"before")
    mount = Mounted(Faulty(store, refusing()))
    await refused_file(mount, "new")
    await refused_file(mount, "old")
    assert (await mount.stat("old")).size == 8
    assert sorted(await mount.fs.discard(["new", "old", "none"])) == ["new", "old"]
    assert mount.fs.outstanding().waiting == ()
    assert await mount.names() == ["old"]
    assert await mount.read("old") == b"before"
    await mount.fs.aclose()


async def test_what_somebody_has_open_is_not_discarded(store: MemoryStore) -> None:
    mount = Mounted(Faulty(store, refusing()))
    await refused_file(mount, "a")
    fh = await mount.open("a")
    assert await mount.fs.discard(["a"]) == []
    with pytest.raises(AccessDenied):
        await mount.close(fh)
    assert await mount.fs.discard(["a"]) == ["a"]
    await mount.fs.aclose()


async def test_what_fails_again_and_again_is_tried_ever_more_seldom(store: MemoryStore, autojump_clock: trio.testing.MockClock) -> None:
    refused = [True]
    tried: list[float] = []

    def plan(op: Op) -> Fault:
        if op.kind is Kind.COMMIT:
            tried.append(trio.current_time())
        return refusing()(op) if refused[0] else NOTHING

    mount = Mounted(Faulty(store, plan))
    await refused_file(mount, "a")
    async with trio.open_nursery() as nursery:
        await nursery.start(mount.fs.run)
        await trio.sleep(3600)
        waits = [after - before for before, after in pairwise(tried)]
        assert 12 <= len(tried) <= 30
        assert waits[-1] == pytest.approx(300, abs=10)
        assert waits[3] < 30
        refused[0] = False
        await trio.sleep(310)
        assert await body(store, "a") == b"precious"
        nursery.cancel_scope.cancel()
    await mount.fs.aclose()


async def test_what_lacks_bytes_that_were_written_says_so_to_whoever_keeps_it(
    store: MemoryStore, hands: Hands, expect_logs: ExpectLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_logs(KEPT_LINE)
    mount = Mounted(store, keep=hands)
    fh = await mount.create("a")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("s3mount.fs.staging.os.pwrite", full)
        with pytest.raises(NoSpace):
            await mount.fs.write(fh, 0, b"n" * MiB)
    await mount.fs.write(fh, MiB, b"behind")
    with pytest.raises(NoSpace):
        await mount.close(fh)
    with pytest.raises(NoSpace):
        await mount.fs.aclose()
    assert hands.only.incomplete
    assert hands.only_bytes == bytes(MiB) + b"behind"
