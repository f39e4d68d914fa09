"""What a user of a mount may rely on: names, directories, links, attributes."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3mount.model import Key
from s3mount.store.api import ObjectStore
from tests.fuse.conftest import AS_ROOT, NewMount
from tests.fuse.mounting import Mount, error_of

pytestmark = pytest.mark.fuse

only_root = pytest.mark.skipif(not AS_ROOT, reason="only root may do this")

libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


def renameat2(old: Path, new: Path, flags: int) -> None:
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def d_name(entry: int) -> bytes:
    """Of a struct dirent64 on Linux."""
    return ctypes.string_at(entry + 19)


# -- renaming ----------------------------------------------------------------------------


def test_a_tree_moves_with_what_is_being_written_in_it(here: Path) -> None:
    (here / "old/deep").mkdir(parents=True)
    (here / "old/deep/done").write_text("done")
    with open(here / "old/deep/open", "w") as file:
        file.write("half ")
        file.flush()
        (here / "old").rename(here / "new")
        file.write("whole")
    assert (here / "new/deep/done").read_text() == "done"
    assert (here / "new/deep/open").read_text() == "half whole"
    assert os.listdir(here) == ["new"]


def test_a_directory_replaces_an_empty_one_only(here: Path) -> None:
    for name in ("source", "empty", "full", "full/x"):
        (here / name).mkdir()
    (here / "source/file").write_text("kept")
    assert error_of(lambda: (here / "source").rename(here / "full")) in (errno.ENOTEMPTY, errno.EEXIST)
    (here / "source").rename(here / "empty")
    assert sorted(os.listdir(here)) == ["empty", "full"]
    assert (here / "empty/file").read_text() == "kept"


def test_a_directory_does_not_move_into_itself(here: Path) -> None:
    (here / "a/b").mkdir(parents=True)
    assert error_of(lambda: (here / "a").rename(here / "a/b/c")) == errno.EINVAL


def test_rename_without_replacing(here: Path) -> None:
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    assert error_of(lambda: renameat2(here / "a", here / "b", RENAME_NOREPLACE)) == errno.EEXIST
    renameat2(here / "a", here / "c", RENAME_NOREPLACE)
    assert sorted(os.listdir(here)) == ["b", "c"]


def test_two_names_are_exchanged(here: Path) -> None:
    (here / "file").write_text("file")
    (here / "folder").mkdir()
    (here / "folder/below").write_text("below")
    renameat2(here / "file", here / "folder", RENAME_EXCHANGE)
    assert (here / "folder").read_text() == "file"
    assert (here / "file/below").read_text() == "below"


def test_renaming_onto_another_link_of_the_same_file_does_nothing(here: Path) -> None:
    (here / "a").write_text("text")
    (here / "b").hardlink_to(here / "a")
    (here / "a").rename(here / "b")
    assert sorted(os.listdir(here)) == ["a", "b"]


def test_a_rename_shows_in_the_times_of_both_directories_and_of_the_file(here: Path) -> None:
    (here / "from").mkdir()
    (here / "to").mkdir()
    (here / "from/file").write_text("x")
    for folder in ("from", "to"):
        os.utime(here / folder, (1, 1))
    ctime = (here / "from/file").stat().st_ctime_ns
    time.sleep(0.01)  # coarse clocks tick every few milliseconds
    (here / "from/file").rename(here / "to/file")
    assert (here / "from").stat().st_mtime > 1
    assert (here / "to").stat().st_mtime > 1
    assert (here / "to/file").stat().st_ctime_ns > ctime


# -- links and special files -----------------------------------------------------------------


def test_hard_links_are_one_file(new_mount: NewMount) -> None:
    mount = new_mount()
    (mount.path / "a").write_text("one")
    (mount.path / "b").hardlink_to(mount.path / "a")
    (mount.path / "b").write_text("two")
    assert (mount.path / "a").read_text() == "two"
    assert (mount.path / "a").stat().st_nlink == 2
    mount.again()
    assert (mount.path / "a").stat().st_ino == (mount.path / "b").stat().st_ino
    assert (mount.path / "a").stat().st_nlink == 2
    (mount.path / "a").unlink()
    assert (mount.path / "b").stat().st_nlink == 1
    assert (mount.path / "b").read_text() == "two"


def test_a_hard_link_to_a_file_being_written(here: Path) -> None:
    with open(here / "a", "wb", buffering=0) as file:
        file.write(b"early ")
        (here / "b").hardlink_to(here / "a")
        (here / "a").unlink()
        file.write(b"late")
    assert (here / "b").read_bytes() == b"early late"


def test_inode_numbers_survive_a_remount(new_mount: NewMount) -> None:
    mount = new_mount()
    (mount.path / "folder").mkdir()
    (mount.path / "file").write_text("x")
    before = {name: (mount.path / name).stat().st_ino for name in ("file", "folder")}
    mount.again()
    assert {name: (mount.path / name).stat().st_ino for name in ("file", "folder")} == before


def test_symbolic_links_keep_their_targets(new_mount: NewMount) -> None:
    mount = new_mount()
    targets = {"relative": b"folder/file", "dangling": b"/nowhere at all", "long": b"x/" * 2000, "bytes": b"\xff\xfe"}
    for name, target in targets.items():
        os.symlink(target, os.fsencode(mount.path / name))
    (mount.path / "folder").mkdir()
    (mount.path / "folder/file").write_text("through")
    mount.again()
    for name, target in targets.items():
        assert os.readlink(os.fsencode(mount.path / name)) == target
        assert (mount.path / name).lstat().st_size == len(target)
        assert stat.S_ISLNK((mount.path / name).lstat().st_mode)
    assert (mount.path / "relative").read_text() == "through"


def test_fifos_and_sockets_work_and_survive_a_remount(new_mount: NewMount) -> None:
    mount = new_mount()
    os.mkfifo(mount.path / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(mount.path / "socket"))
    mount.again()
    assert stat.S_ISSOCK((mount.path / "socket").stat().st_mode)
    assert (mount.path / "fifo").stat().st_mode == stat.S_IFIFO | 0o640
    writer = subprocess.Popen(["sh", "-c", "echo through > fifo"], cwd=mount.path)
    assert (mount.path / "fifo").read_text() == "through\n"
    assert writer.wait(10) == 0


@only_root
def test_device_nodes_keep_their_numbers(new_mount: NewMount) -> None:
    mount = new_mount()
    os.mknod(mount.path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(mount.path / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 300_000))
    mount.again()
    null, disk = (mount.path / "null").stat(), (mount.path / "disk").stat()
    assert (stat.S_IFMT(null.st_mode), null.st_rdev) == (stat.S_IFCHR, os.makedev(1, 3))
    assert (stat.S_IFMT(disk.st_mode), disk.st_rdev) == (stat.S_IFBLK, os.makedev(259, 300_000))


# -- attributes ---------------------------------------------------------------------------


def test_modes_times_and_xattrs_survive_a_remount(new_mount: NewMount) -> None:
    mount = new_mount()
    (mount.path / "file").write_text("x")
    (mount.path / "folder").mkdir()
    for name, mode in (("file", 0o6750), ("folder", 0o1777)):
        path = mount.path / name
        os.setxattr(path, "user.note", b"\0binary\xff")
        path.chmod(mode)
        os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_987_654_321))
    mount.again()
    for name, mode in (("file", 0o6750), ("folder", 0o1777)):
        status = (mount.path / name).stat()
        assert stat.S_IMODE(status.st_mode) == mode
        assert (status.st_atime_ns, status.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_987_654_321)
        assert os.getxattr(mount.path / name, "user.note") == b"\0binary\xff"


@only_root
def test_owners_survive_a_remount_and_set_id_does_not_survive_a_new_owner(new_mount: NewMount) -> None:
    mount = new_mount()
    (mount.path / "file").write_text("x")
    (mount.path / "folder").mkdir()
    (mount.path / "link").symlink_to("file")
    (mount.path / "file").chmod(0o6755)
    os.chown(mount.path / "file", 1234, 4321)
    os.chown(mount.path / "folder", 1, 2)
    os.lchown(mount.path / "link", 3, 4)
    mount.again()
    owners = {name: ((mount.path / name).lstat().st_uid, (mount.path / name).lstat().st_gid) for name in ("file", "folder", "link")}
    assert owners == {"file": (1234, 4321), "folder": (1, 2), "link": (3, 4)}
    assert stat.S_IMODE((mount.path / "file").stat().st_mode) == 0o755


def test_the_umask_of_the_caller_counts_not_that_of_the_mount(here: Path) -> None:
    subprocess.run(["sh", "-c", "umask 027; : > file; mkdir folder; umask 0; : > open"], cwd=here, check=True)
    modes = {name: stat.S_IMODE((here / name).stat().st_mode) for name in ("file", "folder", "open")}
    assert modes == {"file": 0o640, "folder": 0o750, "open": 0o666}


@only_root
def test_other_users_are_held_to_the_modes(new_mount: NewMount) -> None:
    mount = new_mount("--allow-other")
    mount.path.chmod(0o755)
    (mount.path / "private").write_text("x")
    (mount.path / "private").chmod(0o600)
    (mount.path / "sticky").mkdir()
    (mount.path / "sticky").chmod(0o1777)
    (mount.path / "sticky/roots").write_text("x")
    script = """if 1:
        import os
        os.setgid(65534); os.setuid(65534)
        os.chdir(PATH)
        def refused(call):
            try: call()
            except PermissionError: return True
        assert refused(lambda: open('private'))
        assert refused(lambda: os.mkdir('new'))
        assert refused(lambda: os.unlink('sticky/roots'))
        open('sticky/mine', 'w').write('x')
        assert os.stat('sticky/mine').st_uid == 65534
        os.chmod('sticky/mine', 0o6777)
        open('sticky/mine', 'w').write('y')
        assert os.stat('sticky/mine').st_mode & 0o6000 == 0, oct(os.stat('sticky/mine').st_mode)
        os.unlink('sticky/mine')
    """
    for folder in mount.path.parents:
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o001)
    done = subprocess.run([sys.executable, "-c", script.replace("PATH", repr(str(mount.path)))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_utime_of_now_and_of_far_away(here: Path) -> None:
    (here / "file").touch()
    os.utime(here / "file", ns=(-1_500_000_000, 4_000_000_000 * 10**9 + 5))
    status = (here / "file").stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (-1_500_000_000, 4_000_000_000 * 10**9 + 5)
    subprocess.run(["touch", "-m", "file"], cwd=here, check=True)
    status = (here / "file").stat()
    assert status.st_atime_ns == -1_500_000_000
    assert abs(status.st_mtime - time.time()) < 60


def test_chmod_leaves_the_content_and_the_modification_time(here: Path) -> None:
    (here / "file").write_text("content")
    os.utime(here / "file", ns=(5, 7))
    (here / "file").chmod(0o400)
    assert (here / "file").stat().st_mtime_ns == 7
    assert (here / "file").read_text() == "content"


def test_extended_attributes(here: Path) -> None:
    file = here / "file"
    file.touch()
    assert os.listxattr(file) == []
    assert error_of(lambda: os.getxattr(file, "user.none")) == errno.ENODATA
    os.setxattr(file, "user.a", b"")
    os.setxattr(file, "user.b", bytes(range(256)) * 8, os.XATTR_CREATE)
    assert error_of(lambda: os.setxattr(file, "user.a", b"x", os.XATTR_CREATE)) == errno.EEXIST
    assert error_of(lambda: os.setxattr(file, "user.c", b"x", os.XATTR_REPLACE)) == errno.ENODATA
    assert error_of(lambda: os.setxattr(file, "user.", b"x")) == errno.EINVAL
    assert sorted(os.listxattr(file)) == ["user.a", "user.b"]
    assert os.getxattr(file, "user.a") == b""
    assert os.getxattr(file, "user.b") == bytes(range(256)) * 8
    assert libc.getxattr(os.fsencode(file), b"user.b", None, 0) == 2048
    small = ctypes.create_string_buffer(10)
    assert libc.getxattr(os.fsencode(file), b"user.b", small, 10) == -1
    assert ctypes.get_errno() == errno.ERANGE
    os.removexattr(file, "user.a")
    assert os.listxattr(file) == ["user.b"]
    assert error_of(lambda: os.removexattr(file, "user.a")) == errno.ENODATA


def test_access_control_lists_are_refused_not_swallowed(here: Path) -> None:
    (here / "file").touch()
    assert error_of(lambda: os.setxattr(here / "file", "system.posix_acl_access", b"\2\0\0\0")) == errno.EOPNOTSUPP


def test_a_mount_without_xattrs_has_none(new_mount: NewMount) -> None:
    mount = new_mount("--no-xattr")
    (mount.path / "file").touch()
    assert error_of(lambda: os.setxattr(mount.path / "file", "user.a", b"x")) == errno.EOPNOTSUPP


# -- directories ----------------------------------------------------------------------------


def test_a_directory_may_be_emptied_while_it_is_listed(here: Path) -> None:
    names = {f"file {n:04}" for n in range(700)}
    for name in names:
        (here / name).touch()
    seen = []
    with os.scandir(here) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    assert sorted(seen) == sorted(names)
    assert os.listdir(here) == []


def test_a_listing_neither_repeats_nor_loses_what_was_there_throughout(here: Path) -> None:
    names = {f"{n:04}" for n in range(800)}
    for name in names:
        (here / name).touch()
    seen = []
    with os.scandir(here) as entries:
        for n, entry in enumerate(entries):
            seen.append(entry.name)
            if n % 7 == 0:
                (here / f"{n:04} new").touch()
                (here / f"0000 new {n}").touch()
    assert len(seen) == len(set(seen))
    assert names <= set(seen)


def test_a_position_in_a_listing_can_be_returned_to(here: Path) -> None:
    for n in range(300):
        (here / f"{n:03}").touch()
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    folder = ctypes.c_void_p(libc.opendir(os.fsencode(here)))
    positions = []
    while entry := libc.readdir(folder):
        positions.append((d_name(entry), libc.telldir(folder)))
    for index in (5, 250, 100, 0):
        libc.seekdir(folder, ctypes.c_long(positions[index][1]))
        assert d_name(libc.readdir(folder)) == positions[index + 1][0]
    libc.closedir(folder)
    assert len({position for _, position in positions}) == len(positions) == 302


def test_many_who_make_rename_list_and_remove_in_one_directory_get_along(here: Path) -> None:
    def busy(me: int) -> None:
        for n in range(25):
            path = here / f"{me} {n}"
            path.mkdir()
            (path / "inside").write_text(str(n))
            path.rename(here / f"{me} {n} moved")
            assert f"{me} {n} moved" in os.listdir(here)
            if n % 2:
                (here / f"{me} {n} moved/inside").rename(here / f"{me} {n} file")
                (here / f"{me} {n} moved").rmdir()

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(busy, me) for me in range(6)]:
            done.result()
    expected = {f"{me} {n} {'file' if n % 2 else 'moved'}" for me in range(6) for n in range(25)}
    assert set(os.listdir(here)) == expected


def test_a_directory_notices_new_and_gone_entries(here: Path) -> None:
    os.utime(here, (1, 1))
    (here / "new").touch()
    assert here.stat().st_mtime > 1
    os.utime(here, (1, 1))
    (here / "new").unlink()
    assert here.stat().st_mtime > 1


def test_a_directory_counts_its_subdirectories_or_says_nothing(here: Path) -> None:
    (here / "sub").mkdir()
    assert here.stat().st_nlink in (1, 2, 3)


# -- names --------------------------------------------------------------------------------

NAMES = [
    b"a\xcc\x88 decomposed",
    b"\xc3\xa4 composed",
    b"not utf-8 \xff\xfe\x80",
    b"control \x01\x1b\n\t",
    b"trailing dot.",
    b"trailing space ",
    b"%41%2F",
    b"plus+and&and=",
    b"back\\slash",
    b"...",
    b"-rf",
    b"~",
    b"\xe2\x90\x9b escape mark",
    b"\xe2\x90\x9b\xe2\x90\x9b",
    b"\xed\xa0\x80 a surrogate",
    "ü".encode() * 127,
    b"x" * 255,
    "😀".encode() * 63,
]


def test_any_name_can_be_stored_and_comes_back_after_a_remount(new_mount: NewMount) -> None:
    mount = new_mount()
    top = os.fsencode(mount.path)
    for n, name in enumerate(NAMES):
        os.mkdir(top + b"/d%d" % n)
        for folder in (b"", b"d%d/" % n):
            Path(os.fsdecode(top + b"/" + folder + name)).write_bytes(name)
    mount.again()
    assert sorted(name for name in os.listdir(top) if name in NAMES) == sorted(NAMES)
    for n, name in enumerate(NAMES):
        assert Path(os.fsdecode(top + b"/" + name)).read_bytes() == name
        assert os.listdir(top + b"/d%d" % n) == [name]
        os.rename(top + b"/" + name, top + b"/d%d/" % n + name)
        os.unlink(top + b"/d%d/" % n + name)


def test_a_name_of_256_bytes_is_too_long(here: Path) -> None:
    for call in (os.stat, os.mkdir, Path.touch, lambda path: os.rename(here, path)):
        assert error_of(lambda call=call: call(here / ("x" * 256))) == errno.ENAMETOOLONG  # type: ignore[misc]


def test_a_path_of_more_than_the_longest_key_is_too_long(here: Path) -> None:
    """Keys end at 4096 bytes; directories can be entered one by one beyond what one path may have."""
    before = os.getcwd()
    os.chdir(here)
    try:
        made = 0
        while (number := error_of(lambda: os.mkdir("x" * 255))) is None:
            os.chdir("x" * 255)
            made += 1
            assert made < 20
    finally:
        os.chdir(before)
    assert number == errno.ENAMETOOLONG
    assert made >= 14


ODD_KEYS = ["a//b", "/leading", "dots/../x", "dots/./y", "both", "both/below", "slash/", "z" * 300, "deep/" + "w" * 600 + "/v"]


def test_every_key_is_reachable_and_can_be_edited_and_removed(new_mount: NewMount) -> None:
    mount = new_mount()

    async def fill(store: ObjectStore) -> None:
        for key in ODD_KEYS:
            await store.put(Key(key), key.encode())

    async def contents(store: ObjectStore) -> dict[str, int]:
        page = await store.list("")
        return {info.key: info.size for info in page.objects if info.size}

    mount.elsewhere(fill)
    mount.seen("deep")
    files = [Path(folder) / name for folder, _, names in os.walk(mount.path) for name in names]
    assert sorted(file.read_bytes().decode() for file in files) == sorted(ODD_KEYS)
    for file in files:
        with open(file, "ab") as appended:
            appended.write(b"!")
    assert mount.elsewhere(contents) == {key: len(key.encode()) + 1 for key in ODD_KEYS}
    for file in files:
        file.unlink()
    assert mount.elsewhere(contents) == {}


def test_a_directory_that_only_a_key_implied_stays_after_its_last_file(new_mount: NewMount) -> None:
    mount = new_mount()

    async def fill(store: ObjectStore) -> None:
        await store.put(Key("implied/deeper/file"), b"x")

    mount.elsewhere(fill)
    os.unlink(mount.seen("implied/deeper/file"))
    assert os.listdir(mount.path / "implied/deeper") == []
    (mount.path / "implied/deeper").rmdir()
    (mount.path / "implied").rmdir()
    assert os.listdir(mount.path) == []


def test_a_prefix_can_be_mounted_for_itself(new_mount: NewMount) -> None:
    mount: Mount = new_mount()
    (mount.path / "top/sub").mkdir(parents=True)
    (mount.path / "top/sub/file").write_text("below")
    (mount.path / "beside").touch()
    mount.stop()
    mount.url = "local://bucket/top"
    mount.start()
    assert os.listdir(mount.path) == ["sub"]
    assert (mount.path / "sub/file").read_text() == "below"
