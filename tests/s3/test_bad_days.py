"""Bad days of a real mount: whatever the wire does, no program reads a wrong byte, and the mount is there when the wire is well again.

Two mounts share the front: a patient one, in which everything succeeds late, and a hasty one, which gives up after a second and must say so
with the right errno. Each test reads files of its own, so that no cache helps it.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuse.mounting import Mount, until
from tests.fuse.remote import remote_mount
from tests.s3.fronted import BUCKET, Fronted, fronted
from tests.s3.test_bad_wire import BREAKS, HANGS
from tests.wire.faults import DENIED, EXPIRED, INTERNAL_ERROR, SLOW_DOWN, Rule

pytestmark = [pytest.mark.slow, pytest.mark.fuse]

MiB = 1 << 20
# Several ranges that a reader has under way at once; and enough files for every test.
FILM = random.Random(7).randbytes(20 * MiB)
FILES = {f"file-{number}": random.Random(number).randbytes(3000) for number in range(12)}
PATIENT = ("--connect-timeout", "5", "--first-byte-timeout", "3", "--stall-timeout", "3", "--retry-for", "30")
HASTY = (*PATIENT[:-1], "1")
READING = ("GET", "GET-range")
LOOKING = ("LIST", "HEAD")
SOME_BREAKS = {
    name: BREAKS[name] for name in ("a storm of SlowDown", "a reset in mid-body", "a body cut off", "a lost reply", "a lost request")
}
ALL_BREAKS = {**BREAKS, "a range ignored": Rule("ignore_range")}


# So many of each are in the bucket before anybody mounts it: what comes later is seen a second later.
FILMS, FOLDERS = 40, 8


class Stage:
    """The bucket behind its front, and films and directories that nobody has read yet."""

    def __init__(self, wire: Fronted) -> None:
        self.wire = wire
        self.front = wire.front
        wire.direct.put_object(Bucket=BUCKET, Key="film", Body=FILM)
        for number in range(FILMS):
            wire.direct.copy_object(Bucket=BUCKET, Key=f"film-{number}", CopySource={"Bucket": BUCKET, "Key": "film"})
        for number in range(FOLDERS):
            for file, body in FILES.items():
                wire.direct.put_object(Bucket=BUCKET, Key=f"folder-{number}/{file}", Body=body)
        self._films, self._folders = iter(range(FILMS)), iter(range(FOLDERS))

    def film(self) -> str:
        return f"film-{next(self._films)}"

    def folder(self) -> str:
        return f"folder-{next(self._folders)}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with fronted(tmp_path_factory.mktemp("fronted")) as running:
        yield Stage(running)


@pytest.fixture
def stage(shared: Stage) -> Iterator[Stage]:
    shared.wire.well()
    yield shared
    shared.wire.well()


@contextmanager
def mounted(stage: Stage, folder: Path, *options: str) -> Iterator[Mount]:
    with remote_mount(folder, stage.front.url, BUCKET, *options) as mount:
        # It may complain of the wire as it likes, but not of itself.
        mount.expected = [r"\A(?!(?:.|\n)*Traceback)"]
        yield mount
        stage.wire.well()


@pytest.fixture(scope="module")
def patient(shared: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(shared, tmp_path_factory.mktemp("patient"), *PATIENT) as mount:
        yield mount


@pytest.fixture(scope="module")
def hasty(shared: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with mounted(shared, tmp_path_factory.mktemp("hasty"), *HASTY) as mount:
        yield mount


def refused(act: Callable[[], object]) -> int:
    """The errno with which *act* fails; 0 if it does not."""
    try:
        act()
    except OSError as error:
        return error.errno or 0
    return 0


def require_film(data: bytes, start: int = 0) -> None:
    """Without pytest's comparison of 20 MiB."""
    if data != FILM[start : start + len(data)]:
        first = next(at for at, (one, other) in enumerate(zip(data, FILM[start:], strict=False)) if one != other)
        raise AssertionError(f"wrong bytes from {start + first} on")


def watch(path: Path) -> None:
    """Read it from beginning to end."""
    data = path.read_bytes()
    require_film(data)
    assert len(data) == len(FILM)


def require_film_or_stale(descriptor: int) -> None:
    for start in range(0, len(FILM), MiB):
        pages: list[bytes] = []
        failure = refused(lambda start=start, pages=pages: pages.append(os.pread(descriptor, 4096, start)))  # type: ignore[misc]
        assert failure in (0, errno.ESTALE)
        require_film(b"".join(pages), start)


# -- succeeding late ----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ALL_BREAKS.values(), ids=ALL_BREAKS)
def test_a_file_is_read_right_however_the_wire_breaks(stage: Stage, patient: Mount, rule: Rule) -> None:
    film = patient.path / stage.film()
    stage.front.spoil(replace(rule, kinds=READING, times=1), replace(rule, kinds=READING, chance=0.3, seed=11))
    watch(film)
    counts = stage.front.counts()
    assert sum(counts["all"].faults.values()) > 0, f"nothing was spoiled: {counts}"


@pytest.mark.parametrize("rule", HANGS.values(), ids=HANGS)
def test_a_file_is_read_right_where_answers_stop(stage: Stage, patient: Mount, rule: Rule) -> None:
    film = patient.path / stage.film()
    stage.front.spoil(replace(rule, kinds=READING, times=3))
    watch(film)
    assert sum(stage.front.counts()["all"].faults.values()) == 3


def test_random_reads_in_many_threads_are_right_in_a_storm(stage: Stage, patient: Mount) -> None:
    film = patient.path / stage.film()
    stage.front.spoil(
        replace(SLOW_DOWN, chance=0.1, seed=1),
        Rule("reset", at=0.5, chance=0.1, seed=2),
        Rule("truncate", at=0.3, chance=0.1, seed=3),
        Rule("short_length", at=0.9, chance=0.1, seed=4),
    )
    starts = [random.Random(5 + number).randrange(len(FILM) - 9000) for number in range(100)]
    with film.open("rb", buffering=0) as file, ThreadPoolExecutor(8) as pool:
        for start, data in zip(starts, pool.map(lambda start: os.pread(file.fileno(), 9000, start), starts), strict=True):
            require_film(data, start)


@pytest.mark.parametrize("rule", SOME_BREAKS.values(), ids=SOME_BREAKS)
def test_names_and_attributes_are_right_however_the_wire_breaks(stage: Stage, patient: Mount, rule: Rule) -> None:
    folder = patient.path / stage.folder()
    stage.front.spoil(replace(rule, kinds=LOOKING, chance=0.25, seed=13))
    assert {entry.name: entry.stat().st_size for entry in os.scandir(folder)} == dict.fromkeys(FILES, 3000)


def test_small_files_are_right_however_the_wire_breaks(stage: Stage, patient: Mount) -> None:
    folder = patient.path / stage.folder()
    stage.front.spoil(replace(SLOW_DOWN, chance=0.2), Rule("reset", at=0.5, chance=0.2, seed=1), Rule("lost_reply", chance=0.1, seed=2))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_an_endpoint_may_go_away_in_mid_read_and_come_back(stage: Stage, patient: Mount) -> None:
    film = patient.path / stage.film()
    stage.front.set(rate=3e6)
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch, film)
        time.sleep(0.5)
        stage.front.away()
        time.sleep(2.5)
        assert not watching.done()
        stage.front.set(rate=0)
        stage.front.back()
        watching.result(50)


# -- failing, with the right errno ----------------------------------------------------------------


ENDS = {
    "SlowDown": (SLOW_DOWN, {errno.EIO}),
    "internal errors": (INTERNAL_ERROR, {errno.EIO}),
    "resets": (Rule("reset", at=0.3), {errno.EIO}),
    "short bodies": (Rule("truncate", at=0.3), {errno.EIO}),
    "wrong lengths": (Rule("short_length", at=0.3), {errno.EIO}),
    "silence": (Rule("silence", seconds=20), {errno.ETIMEDOUT}),
    "stalls": (Rule("stall", at=0.3, seconds=20), {errno.ETIMEDOUT}),
    "expired credentials": (EXPIRED, {errno.EACCES}),
    "no rights": (DENIED, {errno.EACCES}),
}


@pytest.mark.parametrize(("rule", "allowed"), ENDS.values(), ids=ENDS)
def test_a_read_that_cannot_succeed_says_why_and_the_same_descriptor_goes_on_later(
    stage: Stage, hasty: Mount, rule: Rule, allowed: set[int]
) -> None:
    with (hasty.path / stage.film()).open("rb", buffering=0) as file:
        stage.front.spoil(replace(rule, kinds=READING))
        assert refused(lambda: os.pread(file.fileno(), 4096, 15 * MiB)) in allowed
        stage.front.spoil()
        require_film(os.pread(file.fileno(), 4096, 15 * MiB), 15 * MiB)
        assert file.read(4096) == FILM[:4096]


def test_credentials_that_expire_in_mid_read_spoil_nothing_that_was_read(stage: Stage, hasty: Mount) -> None:
    with (hasty.path / stage.film()).open("rb", buffering=0) as file:
        done = len(file.read(MiB))
        stage.front.spoil(EXPIRED)
        failure = 0
        while done < len(FILM) and not failure:
            try:
                piece = file.read(MiB)
            except OSError as error:
                failure = error.errno or 0
            else:
                require_film(piece, done)
                done += len(piece)
        # What was under way when they expired may have come; the rest may not.
        assert failure in (0, errno.EACCES)
        assert failure or done == len(FILM)
        stage.front.spoil()
        while done < len(FILM):
            piece = file.read(MiB)
            require_film(piece, done)
            done += len(piece)


def test_names_that_cannot_be_asked_for_say_why(stage: Stage, hasty: Mount) -> None:
    folder = hasty.path / stage.folder()
    stage.front.spoil(SLOW_DOWN)
    assert refused(lambda: os.listdir(folder)) == errno.EIO
    stage.front.spoil(DENIED)
    assert refused(lambda: os.listdir(folder)) == errno.EACCES
    stage.front.spoil()
    assert sorted(os.listdir(folder)) == sorted(FILES)


def test_an_endpoint_that_stays_away_is_an_error_and_no_hanging_mount(stage: Stage, hasty: Mount) -> None:
    name, folder = stage.film(), hasty.path / stage.folder()
    with (hasty.path / name).open("rb", buffering=0) as file:
        stage.front.away()
        assert refused(lambda: os.pread(file.fileno(), 4096, 15 * MiB)) == errno.EIO
        assert refused(lambda: os.listdir(folder)) == errno.EIO
        stage.front.back()
        require_film(os.pread(file.fileno(), 4096, 15 * MiB), 15 * MiB)
        assert sorted(os.listdir(folder)) == sorted(FILES)


# -- somebody else --------------------------------------------------------------------------------


def test_an_object_replaced_in_mid_read_is_never_mixed_with_its_successor(stage: Stage, hasty: Mount) -> None:
    name = stage.film()
    successor = FILM[::-1]
    with (hasty.path / name).open("rb", buffering=0) as file:
        require_film(file.read(4096))
        stage.wire.direct.put_object(Bucket=BUCKET, Key=name, Body=successor)
        require_film_or_stale(file.fileno())
        until(lambda: (hasty.path / name).read_bytes() == successor)


def test_an_object_deleted_in_mid_read_gives_no_wrong_bytes(stage: Stage, hasty: Mount) -> None:
    name = stage.film()
    with (hasty.path / name).open("rb", buffering=0) as file:
        require_film(file.read(4096))
        stage.wire.direct.delete_object(Bucket=BUCKET, Key=name)
        require_film_or_stale(file.fileno())
        until(lambda: refused((hasty.path / name).stat) == errno.ENOENT)


# -- writing --------------------------------------------------------------------------------------


WRITES = {**SOME_BREAKS, "an upload broken off": Rule("reset_upload", at=0.5)}


@pytest.mark.parametrize("rule", WRITES.values(), ids=WRITES)
def test_what_was_closed_without_an_error_is_in_the_bucket(stage: Stage, patient: Mount, rule: Rule) -> None:
    """An upload whose very beginning got no answer is nobody's, and not looked at here."""
    key = f"new-{rule.fault}-{rule.at}-{rule.code}/file"
    (patient.path / key).parent.mkdir()
    kinds = ("PUT", "UploadPart", "Complete", *LOOKING, *READING)
    stage.front.spoil(replace(rule, kinds=kinds, chance=0.3, seed=17))
    (patient.path / key).write_bytes(FILM[:MiB])
    (patient.path / f"{key}-large").write_bytes(FILM)
    stage.front.spoil()
    assert stage.wire.body(key) == FILM[:MiB]
    require_film(stage.wire.body(f"{key}-large"))
    until(lambda: "Uploads" not in stage.wire.direct.list_multipart_uploads(Bucket=BUCKET, Prefix=key))


def test_a_close_that_cannot_succeed_fails(stage: Stage, hasty: Mount) -> None:
    def write() -> None:
        (hasty.path / "new-refused/file").write_bytes(b"never there")

    (hasty.path / "new-refused").mkdir()
    stage.front.spoil(replace(INTERNAL_ERROR, kinds=("PUT", "HEAD")))
    assert refused(write) == errno.EIO
    stage.front.spoil(replace(DENIED, kinds=("PUT",)))
    assert refused(write) == errno.EACCES
    stage.front.spoil()
