"""What a user of a mount may rely on: crashes, refusals, other clients."""

from __future__ import annotations

import errno
import os

import pytest

from s3mount.model import Key
from s3mount.store.api import ObjectStore
from tests.fuse.conftest import NewMount
from tests.fuse.mounting import SERVE, Mount, abandon, error_of, until

pytestmark = pytest.mark.fuse

TTL = "0.1"


def put(mount: Mount, key: str, data: bytes) -> None:
    """Another client commits."""

    async def act(store: ObjectStore) -> None:
        await store.put(Key(key), data)

    mount.elsewhere(act)


def delete(mount: Mount, key: str) -> None:
    async def act(store: ObjectStore) -> None:
        await store.delete(Key(key))

    mount.elsewhere(act)


# -- crashes ------------------------------------------------------------------------------


def test_after_kill_9_closed_files_are_whole_and_others_old_or_absent(new_mount: NewMount) -> None:
    mount = new_mount()
    data = os.urandom(3_000_000)
    (mount.path / "closed").write_bytes(data)
    (mount.path / "edited").write_bytes(b"old")
    (mount.path / "folder").mkdir()
    edited = os.open(mount.path / "edited", os.O_RDWR)
    os.write(edited, b"NEW")
    new = os.open(mount.path / "new", os.O_WRONLY | os.O_CREAT)
    os.write(new, b"never closed")
    mount.kill()
    abandon(edited)
    abandon(new)
    mount.start()
    assert (mount.path / "closed").read_bytes() == data
    assert (mount.path / "edited").read_bytes() == b"old"
    assert not (mount.path / "new").exists() or (mount.path / "new").read_bytes() == b""
    assert (mount.path / "folder").is_dir()


def test_after_kill_9_what_was_synced_is_there_though_it_was_never_closed(new_mount: NewMount) -> None:
    mount = new_mount()
    fd = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"synced")
    os.fsync(fd)
    os.write(fd, b" not synced")
    mount.kill()
    abandon(fd)
    mount.start()
    assert (mount.path / "file").read_bytes() == b"synced"


def test_after_kill_9_nothing_is_left_in_the_staging_folder(new_mount: NewMount) -> None:
    mount = new_mount()
    fd = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, os.urandom(5_000_000))
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    mount.kill()
    abandon(fd)
    mount.start()
    mount.stop()
    assert [path for path in (mount.data / "staging").rglob("*") if path.is_file()] == []


# -- refusals -----------------------------------------------------------------------------


def test_close_says_why_a_file_could_not_be_committed(new_mount: NewMount) -> None:
    mount = new_mount(program=[SERVE])
    mount.expected = ["takes nothing below refused/"]
    (mount.path / "refused").mkdir()
    (mount.path / "fine").write_bytes(b"fine")
    fd = os.open(mount.path / "refused/file", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"content")
    assert error_of(lambda: os.fsync(fd)) == errno.EACCES
    assert error_of(lambda: os.close(fd)) == errno.EACCES
    (mount.path / "refused/file").unlink()
    assert (mount.path / "fine").read_bytes() == b"fine"


def test_what_could_not_be_committed_can_be_saved_by_renaming_it(new_mount: NewMount) -> None:
    mount = new_mount(program=[SERVE])
    mount.expected = ["takes nothing below refused/"]
    (mount.path / "refused").mkdir()
    with open(mount.path / "refused/file", "wb", buffering=0) as file:
        file.write(b"content")
        assert error_of(lambda: os.fsync(file.fileno())) == errno.EACCES
        assert error_of(lambda: (mount.path / "refused/file").rename(mount.path / "saved")) in (None, errno.EACCES)
        if (mount.path / "saved").exists():
            os.fsync(file.fileno())
            assert (mount.path / "saved").read_bytes() == b"content"
        else:
            (mount.path / "refused/file").unlink()


def test_a_defect_is_an_input_output_error_with_one_traceback_and_the_mount_lives_on(new_mount: NewMount) -> None:
    mount = new_mount(program=[SERVE])
    mount.expected = ["failed unexpectedly", "a defect"]
    (mount.path / "defect").mkdir()
    for name in ("one", "two"):
        fd = os.open(mount.path / "defect" / name, os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"x")
        assert error_of(lambda fd=fd: os.close(fd)) == errno.EIO  # type: ignore[misc]
        (mount.path / "defect" / name).unlink()
    (mount.path / "fine").write_bytes(b"fine")
    assert (mount.path / "fine").read_bytes() == b"fine"
    assert mount.log.read_text().count("LookupError: a defect") == 1


# -- other clients --------------------------------------------------------------------------


def test_an_object_replaced_elsewhere_is_seen_by_the_next_open(new_mount: NewMount) -> None:
    mount = new_mount(f"--metadata-ttl={TTL}")
    (mount.path / "file").write_bytes(b"ours")
    assert (mount.path / "file").read_bytes() == b"ours"
    put(mount, "file", b"theirs, longer")
    until(lambda: (mount.path / "file").read_bytes() == b"theirs, longer")
    assert (mount.path / "file").stat().st_size == 14


def test_an_open_file_shows_one_version_from_first_byte_to_last(new_mount: NewMount) -> None:
    mount = new_mount(f"--metadata-ttl={TTL}")
    ours, theirs = b"a" * 3_000_000, b"b" * 3_000_000
    (mount.path / "file").write_bytes(ours)
    with open(mount.path / "file", "rb", buffering=0) as file:
        assert file.read(1000) == ours[:1000]
        put(mount, "file", theirs)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        until(lambda: (mount.path / "file").read_bytes() == theirs)
        rest = b"".join(iter(lambda: file.read(1 << 20), b""))
        assert rest == ours[1000:]


def test_an_edit_of_a_version_that_was_replaced_fails_instead_of_undoing_the_other(new_mount: NewMount) -> None:
    mount = new_mount(f"--metadata-ttl={TTL}")
    mount.expected = [".*"]
    (mount.path / "file").write_bytes(b"base")
    fd = os.open(mount.path / "file", os.O_RDWR)
    os.pwrite(fd, b"E", 0)
    put(mount, "file", b"theirs")
    assert error_of(lambda: os.close(fd)) == errno.ESTALE
    until(lambda: (mount.path / "file").read_bytes() == b"theirs")


def test_a_full_overwrite_wins_over_another_client(new_mount: NewMount) -> None:
    mount = new_mount(f"--metadata-ttl={TTL}")
    (mount.path / "file").write_bytes(b"base")
    with open(mount.path / "file", "wb") as file:
        file.write(b"ours")
        put(mount, "file", b"theirs")
    until(lambda: (mount.path / "file").read_bytes() == b"ours")


def test_what_others_make_and_remove_shows_within_the_time_to_live(new_mount: NewMount) -> None:
    mount = new_mount(f"--metadata-ttl={TTL}")
    assert not (mount.path / "theirs").exists()
    put(mount, "theirs", b"new")
    until((mount.path / "theirs").exists)
    until(lambda: os.listdir(mount.path) == ["theirs"])
    delete(mount, "theirs")
    until(lambda: not (mount.path / "theirs").exists())
    until(lambda: os.listdir(mount.path) == [])


def test_two_mounts_of_one_folder_see_each_others_files(new_mount: NewMount) -> None:
    one = new_mount(f"--metadata-ttl={TTL}")
    other = new_mount(f"--metadata-ttl={TTL}", data=one.data)
    (one.path / "from one").write_text("1")
    until((other.path / "from one").exists)
    (other.path / "from one").rename(other.path / "renamed")
    until((one.path / "renamed").exists)
    assert (one.path / "renamed").read_text() == "1"
