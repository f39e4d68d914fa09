"""What a user of a mount may rely on: files and their content. (Names, attributes, failures: the neighbouring modules.)"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from s3mount.model import Key
from tests.fuse.conftest import NewMount
from tests.fuse.late_writer import write_late
from tests.fuse.mounting import Mount, environment, until

pytestmark = pytest.mark.fuse

PAGE = mmap.PAGESIZE
MiB = 1 << 20


def drop_pages(fd: int) -> None:
    """Have the next reads come from the file system."""
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


# -- writing ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_random_writes_reads_and_truncates_agree_with_a_plain_buffer(here: Path, seed: int) -> None:
    rng = random.Random(seed)
    model = bytearray()
    fds = [os.open(here / "file", os.O_RDWR | os.O_CREAT) for _ in range(3)]
    for _ in range(150):
        fd, at, size = rng.choice(fds), rng.randrange(300_000), rng.randrange(1, 40_000)
        match rng.randrange(8):
            case 0 | 1 | 2 | 3:
                data = rng.randbytes(size)
                os.pwrite(fd, data, at)
                model.extend(bytes(max(0, at - len(model))))
                model[at : at + size] = data
            case 4 | 5:
                assert os.pread(fd, size, at) == model[at : at + size]
            case 6:
                os.ftruncate(fd, at)
                model.extend(bytes(max(0, at - len(model))))
                del model[at:]
            case 7:
                drop_pages(fd)
        assert os.fstat(fd).st_size == len(model)
    for fd in fds:
        os.close(fd)
    assert (here / "file").read_bytes() == model


def test_an_edit_in_the_middle_keeps_the_rest(here: Path) -> None:
    (here / "file").write_bytes(b"a" * 3 * MiB)
    with open(here / "file", "r+b") as file:
        file.seek(MiB + 7)
        file.write(b"edited")
    content = (here / "file").read_bytes()
    assert content == b"a" * (MiB + 7) + b"edited" + b"a" * (2 * MiB - 13)


def test_a_write_only_handle_fills_up_the_page_it_writes_into(here: Path) -> None:
    (here / "file").write_bytes(b"x" * 10_000)
    fd = os.open(here / "file", os.O_WRONLY)
    drop_pages(fd)
    os.pwrite(fd, b"yy", 5_001)
    os.close(fd)
    assert (here / "file").read_bytes() == b"x" * 5_001 + b"yy" + b"x" * 4_997


def test_a_reader_sees_what_another_handle_writes(here: Path) -> None:
    with open(here / "file", "wb", buffering=0) as writer, open(here / "file", "rb", buffering=0) as reader:
        writer.write(b"one")
        assert reader.read() == b"one"
        writer.write(b"two")
        assert reader.read() == b"two"
        assert os.fstat(reader.fileno()).st_size == 6


def test_processes_that_append_at_once_lose_no_line(here: Path) -> None:
    script = "import sys\nfor n in range(300):\n    with open(sys.argv[1], 'a') as f: f.write(f'{sys.argv[2]} {n}\\n')"
    appenders = [subprocess.Popen([sys.executable, "-c", script, here / "file", name]) for name in "abc"]
    assert [appender.wait(60) for appender in appenders] == [0, 0, 0]
    lines = (here / "file").read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {n}" for name in "abc" for n in range(300))


def test_a_descriptor_shared_with_children_collects_all_their_output(here: Path) -> None:
    subprocess.run(["sh", "-c", "{ /bin/echo a; /bin/echo b; /bin/echo c; } > g"], cwd=here, check=True)
    assert (here / "g").read_text() == "a\nb\nc\n"


def test_o_excl_refuses_a_name_that_is_taken(here: Path) -> None:
    os.close(os.open(here / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    with pytest.raises(FileExistsError):
        os.open(here / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)


def test_o_direct_reads_and_writes_what_is_there(here: Path) -> None:
    block = mmap.mmap(-1, 4 * PAGE)
    block.write(b"d" * 4 * PAGE)
    fd = os.open(here / "file", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    assert os.pwrite(fd, block, 0) == 4 * PAGE
    os.pwrite(fd, memoryview(block)[:PAGE], 8 * PAGE)
    got = mmap.mmap(-1, 16 * PAGE)
    assert os.preadv(fd, [got], 0) == 9 * PAGE
    os.close(fd)
    assert got[: 9 * PAGE] == b"d" * 4 * PAGE + bytes(4 * PAGE) + b"d" * PAGE


def test_two_edits_of_a_file_at_rest_do_not_undo_each_other(here: Path) -> None:
    (here / "file").write_bytes(b"......")
    for at, letter in ((1, b"a"), (4, b"b")):
        with open(here / "file", "r+b") as file:
            file.seek(at)
            file.write(letter)
    assert (here / "file").read_bytes() == b".a..b."


# -- size ---------------------------------------------------------------------------------


def test_truncate_by_path_is_seen_by_an_open_handle(here: Path) -> None:
    with open(here / "file", "w+b", buffering=0) as file:
        file.write(b"0123456789")
        os.truncate(here / "file", 4)
        assert os.fstat(file.fileno()).st_size == 4
        assert os.pread(file.fileno(), 100, 0) == b"0123"
        os.truncate(here / "file", 8)
        assert os.pread(file.fileno(), 100, 0) == b"0123\0\0\0\0"


def test_o_trunc_on_a_second_open_empties_the_first_handle(here: Path) -> None:
    with open(here / "file", "w+b", buffering=0) as first:
        first.write(b"old content")
        with open(here / "file", "wb", buffering=0) as second:
            assert os.fstat(first.fileno()).st_size == 0
            second.write(b"new")
        assert os.pread(first.fileno(), 100, 0) == b"new"


@pytest.mark.parametrize("size", [0, 5])
def test_a_file_that_is_cut_to_the_size_that_it_has_is_as_young_as_on_a_disk(here: Path, size: int) -> None:
    """Regression: the kernel went on telling a time that had been set before."""
    (here / "file").write_bytes(b"bytes"[:size])
    os.utime(here / "file", ns=(10**18, 10**18))
    os.truncate(here / "file", size)
    until(lambda: (here / "file").stat().st_mtime_ns > 10**18)
    assert (here / "file").stat().st_size == size


def test_truncated_away_bytes_do_not_come_back(here: Path) -> None:
    (here / "file").write_bytes(b"secret" * 1000)
    os.truncate(here / "file", 3)
    os.truncate(here / "file", 6000)
    assert (here / "file").read_bytes() == b"sec" + bytes(5997)


def test_writing_past_the_end_leaves_zeros_between(here: Path) -> None:
    with open(here / "file", "wb") as file:
        file.write(b"start")
        file.seek(100_000)
        file.write(b"end")
    content = (here / "file").read_bytes()
    assert content == b"start" + bytes(99_995) + b"end"


def test_a_file_of_many_gigabytes_may_be_mostly_hole(new_mount: NewMount) -> None:
    mount = new_mount()
    with open(mount.path / "sparse", "wb") as file:
        file.seek(6 << 30)
        file.write(b"end")
    mount.again()
    assert (mount.path / "sparse").stat().st_size == (6 << 30) + 3
    with open(mount.path / "sparse", "rb", buffering=0) as file:
        assert file.read(MiB) == bytes(MiB)
        file.seek((6 << 30) - 10)
        assert file.read() == bytes(10) + b"end"


def test_the_size_of_a_file_being_written_is_the_same_everywhere(here: Path) -> None:
    with open(here / "file", "wb", buffering=0) as file:
        file.write(b"x" * 1234)
        assert os.fstat(file.fileno()).st_size == 1234
        assert (here / "file").stat().st_size == 1234
        assert [entry.stat().st_size for entry in os.scandir(here)] == [1234]


# -- mmap ---------------------------------------------------------------------------------


def test_a_shared_mapping_writes_into_the_file(here: Path) -> None:
    (here / "file").write_bytes(bytes(2 * PAGE))
    with open(here / "file", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[PAGE - 2 : PAGE + 2] = b"abcd"
        mapping.flush()
        assert os.pread(file.fileno(), 4, PAGE - 2) == b"abcd"


def test_a_mapping_that_outlives_its_descriptor_still_writes(new_mount: NewMount) -> None:
    mount = new_mount()
    (mount.path / "file").write_bytes(bytes(PAGE))
    write_late(str(mount.path / "file"), b"later")
    mount.again()
    assert (mount.path / "file").read_bytes() == b"later" + bytes(PAGE - 5)


def test_the_tail_of_a_mapped_file_is_zero_after_it_grew(here: Path) -> None:
    (here / "file").write_bytes(b"x" * 10)
    with open(here / "file", "r+b") as file:
        os.ftruncate(file.fileno(), PAGE + 10)
        with mmap.mmap(file.fileno(), PAGE + 10) as mapping:
            assert mapping[:] == b"x" * 10 + bytes(PAGE)


# -- names of open files --------------------------------------------------------------------


def test_a_new_file_has_its_name_before_anything_is_written(here: Path) -> None:
    fd = os.open(here / "file", os.O_CREAT | os.O_RDONLY, 0)
    assert os.listdir(here) == ["file"]
    assert (here / "file").stat().st_mode == 0o100000
    os.close(fd)
    assert os.listdir(here) == ["file"]


def test_an_unlinked_open_file_lives_on_without_a_name(mounted: Mount, here: Path) -> None:
    with open(here / "file", "w+b", buffering=0) as file:
        file.write(b"before")
        (here / "file").unlink()
        assert os.listdir(here) == []
        file.write(b" after")
        assert os.pread(file.fileno(), 100, 0) == b"before after"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert os.listdir(here) == []


def test_an_unlinked_file_that_was_stored_stays_readable(here: Path) -> None:
    data = os.urandom(3 * MiB)
    (here / "file").write_bytes(data)
    with open(here / "file", "rb", buffering=0) as file:
        (here / "file").unlink()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert b"".join(iter(lambda: file.read(MiB), b"")) == data


def test_a_name_can_be_made_again_while_its_old_file_is_open(here: Path) -> None:
    with open(here / "file", "w+b", buffering=0) as old:
        old.write(b"old")
        (here / "file").unlink()
        (here / "file").write_bytes(b"new")
        assert os.pread(old.fileno(), 10, 0) == b"old"
    assert (here / "file").read_bytes() == b"new"


def test_renaming_over_an_open_file_leaves_its_reader_the_old_bytes(here: Path) -> None:
    (here / "target").write_bytes(b"old bytes")
    (here / "source").write_bytes(b"new")
    with open(here / "target", "rb", buffering=0) as reader:
        (here / "source").rename(here / "target")
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert reader.read() == b"old bytes"
    assert (here / "target").read_bytes() == b"new"
    assert os.listdir(here) == ["target"]


def test_a_file_renamed_while_it_is_written_goes_on_under_the_new_name(here: Path) -> None:
    with open(here / "old", "wb", buffering=0) as file:
        file.write(b"first ")
        (here / "old").rename(here / "new")
        file.write(b"second")
        assert (here / "new").stat().st_size == 12
    assert os.listdir(here) == ["new"]
    assert (here / "new").read_bytes() == b"first second"


def test_open_unlink_create_cycles_leave_nothing(here: Path) -> None:
    for n in range(50):
        with open(here / "file", "wb") as file:
            file.write(b"x" * n)
            (here / "file").unlink()
    assert os.listdir(here) == []
    here.rmdir()


# -- locks, syncing ---------------------------------------------------------------------------


def test_locks_hold_within_the_mount(here: Path) -> None:
    with open(here / "file", "w") as one, open(here / "file", "w") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_record_locks_hold_within_the_mount(here: Path) -> None:
    script = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with open(here / "file", "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        other = subprocess.run([sys.executable, "-c", script, here / "file"], capture_output=True, env=environment())
        assert b"BlockingIOError" in other.stderr


@pytest.mark.parametrize("sync", [os.fsync, os.fdatasync])
def test_after_fsync_the_object_is_in_the_store_though_the_file_is_open(mounted: Mount, here: Path, sync: object) -> None:
    with open(here / "file", "wb", buffering=0) as file:
        file.write(b"synced")
        sync(file.fileno())  # type: ignore[operator]
        info = mounted.elsewhere(lambda store: store.head(Key(f"{here.name}/file")))
        assert info.size == 6


def test_fsync_of_a_directory_commits_what_lies_below(mounted: Mount, here: Path) -> None:
    (here / "a/b").mkdir(parents=True)
    with open(here / "a/b/file", "wb", buffering=0) as file:
        file.write(b"deep")
        folder = os.open(here, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
        # The kernel keeps written pages to itself until the file is synced: what we know of must be there.
        found = mounted.elsewhere(lambda store: store.find(f"{here.name}/a/b/file"))
        assert found.object is not None


def test_a_closed_file_is_in_the_store(mounted: Mount, here: Path) -> None:
    (here / "file").write_bytes(b"closed")
    info = mounted.elsewhere(lambda store: store.head(Key(f"{here.name}/file")))
    assert info.size == 6


def test_a_file_created_with_nothing_in_it_is_stored_when_its_last_descriptor_closes(new_mount: NewMount) -> None:
    mount = new_mount()
    (mount.path / "empty").touch()
    mount.again()
    assert os.listdir(mount.path) == ["empty"]


def test_direct_writes_beyond_the_limit_are_refused(here: Path) -> None:
    fd = os.open(here / "file", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="large") as refused:
        os.ftruncate(fd, 6 << 40)
    os.close(fd)
    assert refused.value.errno == errno.EFBIG
