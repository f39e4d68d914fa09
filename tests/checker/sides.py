"""One side of a comparison: a directory in which operations are done, and what came of each.

Owns: the descriptors and mappings of the slots, each operation's meaning in system calls, the picture of the whole tree.
Must not know: what lies below the directory, the other side.

Every method named like an operation returns a plain value that both sides must agree on; a refusal is an OSError whose errno they must
agree on. What file systems may differ in (inode numbers, sizes of directories, times that nobody set) is not told.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.checker.operations import SET_BEFORE_NS, Operation

PAGE = 4096
NOREPLACE, EXCHANGE = 1, 2
AT_FDCWD = -100
EMPTY = "no such slot"
UNTOLD = -1

# In a picture: what whoever looks may not see.
REFUSED = "refused"

_libc = ctypes.CDLL(None, use_errno=True)

Value = int | str | bytes | tuple["Value", ...]
Picture = dict[str, tuple[Value, ...]]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A shared mapping and a descriptor of its own, which tells how far the file still reaches below it."""

    memory: mmap.mmap
    fd: int
    offset: int

    def reach(self) -> int:
        """How many bytes of it lie within the file: touching a page beyond is a SIGBUS."""
        return max(0, min(len(self.memory), os.fstat(self.fd).st_size - self.offset))


class Side:
    """Operations below *root*."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fds: dict[int, tuple[int, int]] = {}
        self.mappings: dict[int, Mapping] = {}
        self.mapped: set[int] = set()

    def do(self, operation: Operation) -> Value:
        """What came of it: a value, or the name of an errno."""
        try:
            outcome: Value = getattr(self, operation.name)(*operation.arguments)
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
        return outcome

    def let_go(self) -> Value:
        """Close whatever is open; what each close answered."""
        left = [Operation("unmap", (slot,)) for slot in sorted(self.mappings)] + [Operation("close", (slot,)) for slot in sorted(self.fds)]
        return tuple(self.do(operation) for operation in left)

    def _at(self, path: str) -> str:
        return os.path.join(self.root, path)

    # -- descriptors --------------------------------------------------------------------

    def open(self, slot: int, path: str, flags: int, mode: int) -> Value:
        before = self.close(slot) if slot in self.fds else EMPTY
        fd = os.open(self._at(path), flags, mode)
        self.fds[slot] = fd, flags
        return before, told(os.fstat(fd))

    def close(self, slot: int) -> Value:
        if slot not in self.fds:
            return EMPTY
        fd, _ = self.fds.pop(slot)
        os.close(fd)
        return "closed"

    def duplicate(self, slot: int, target: int) -> Value:
        if slot not in self.fds or target in self.fds:
            return EMPTY
        fd, flags = self.fds[slot]
        self.fds[target] = os.dup(fd), flags
        return "duplicated"

    def pwrite(self, slot: int, offset: int, size: int, seed: int) -> Value:
        if slot not in self.fds:
            return EMPTY
        fd, flags = self.fds[slot]
        if flags & os.O_DIRECT:
            return self._direct_write(fd, offset // PAGE * PAGE, size // PAGE * PAGE or PAGE, seed)
        return os.pwrite(fd, made(size, seed), offset), os.fstat(fd).st_size

    def write(self, slot: int, size: int, seed: int) -> Value:
        if slot not in self.fds:
            return EMPTY
        fd, flags = self.fds[slot]
        if flags & os.O_DIRECT:
            return self._direct_write(fd, 0, size // PAGE * PAGE or PAGE, seed)
        return os.write(fd, made(size, seed)), os.fstat(fd).st_size

    def _direct_write(self, fd: int, offset: int, size: int, seed: int) -> Value:
        with mmap.mmap(-1, size) as aligned:
            aligned[:] = made(size, seed)
            return os.pwrite(fd, aligned, offset), os.fstat(fd).st_size

    def pread(self, slot: int, offset: int, size: int) -> Value:
        if slot not in self.fds:
            return EMPTY
        fd, flags = self.fds[slot]
        if not flags & os.O_DIRECT:
            return os.pread(fd, size, offset)
        with mmap.mmap(-1, size // PAGE * PAGE or PAGE) as aligned:
            got = os.preadv(fd, [aligned], offset // PAGE * PAGE)
            return aligned[:got]

    def ftruncate(self, slot: int, size: int) -> Value:
        if slot not in self.fds:
            return EMPTY
        os.ftruncate(self.fds[slot][0], size)
        return os.fstat(self.fds[slot][0]).st_size

    def reserve(self, slot: int, offset: int, size: int) -> Value:
        """posix_fallocate, which the C library imitates where the file system has none; through ordinary read-write descriptors."""
        if slot not in self.fds or self.fds[slot][1] & (os.O_ACCMODE | os.O_APPEND | os.O_DIRECT) != os.O_RDWR:
            return EMPTY
        os.posix_fallocate(self.fds[slot][0], offset, size)
        return os.fstat(self.fds[slot][0]).st_size

    def copy_range(self, source: int, target: int, offset: int, to: int, size: int) -> Value:
        if source not in self.fds or target not in self.fds or (self.fds[source][1] | self.fds[target][1]) & os.O_DIRECT:
            return EMPTY
        done = 0
        while done < size:
            copied = os.copy_file_range(self.fds[source][0], self.fds[target][0], size - done, offset + done, to + done)
            if not copied:
                break
            done += copied
        return done

    def fsync(self, slot: int) -> Value:
        if slot not in self.fds:
            return EMPTY
        os.fsync(self.fds[slot][0])
        return "synced"

    def fdatasync(self, slot: int) -> Value:
        if slot not in self.fds:
            return EMPTY
        os.fdatasync(self.fds[slot][0])
        return "synced"

    def drop_pages(self, slot: int) -> Value:
        """Have the next reads come from the file system."""
        if slot not in self.fds:
            return EMPTY
        os.fsync(self.fds[slot][0])
        os.posix_fadvise(self.fds[slot][0], 0, 0, os.POSIX_FADV_DONTNEED)
        return "dropped"

    def fstat(self, slot: int) -> Value:
        return told(os.fstat(self.fds[slot][0])) if slot in self.fds else EMPTY

    def fchmod(self, slot: int, mode: int) -> Value:
        if slot not in self.fds:
            return EMPTY
        os.fchmod(self.fds[slot][0], mode)
        return told(os.fstat(self.fds[slot][0]))

    def futime(self, slot: int, when: int) -> Value:
        if slot not in self.fds:
            return EMPTY
        os.utime(self.fds[slot][0], ns=(when, when))
        return os.fstat(self.fds[slot][0]).st_mtime_ns

    # -- mappings -----------------------------------------------------------------------

    def map(self, number: int, slot: int, offset: int, size: int) -> Value:
        before = self.unmap(number)
        if slot not in self.fds:
            return before, EMPTY
        fd, flags = self.fds[slot]
        found = os.fstat(fd)
        size = min(size, found.st_size - offset)
        if size <= 0 or flags & os.O_ACCMODE != os.O_RDWR:
            return before, EMPTY
        self.mapped.add(found.st_ino)
        self.mappings[number] = Mapping(mmap.mmap(fd, size, offset=offset), os.dup(fd), offset)
        return before, size

    def map_write(self, number: int, at: int, size: int, seed: int) -> Value:
        if number not in self.mappings:
            return EMPTY
        mapping = self.mappings[number]
        data = made(size, seed)[: max(0, mapping.reach() - at)]
        mapping.memory[at : at + len(data)] = data
        return len(data)

    def map_read(self, number: int, at: int, size: int) -> Value:
        if number not in self.mappings:
            return EMPTY
        mapping = self.mappings[number]
        return mapping.memory[at : min(at + size, mapping.reach())]

    def map_sync(self, number: int) -> Value:
        if number not in self.mappings:
            return EMPTY
        self.mappings[number].memory.flush()
        return "synced"

    def unmap(self, number: int) -> Value:
        if number not in self.mappings:
            return EMPTY
        mapping = self.mappings.pop(number)
        mapping.memory.close()
        os.close(mapping.fd)
        return "unmapped"

    # -- names --------------------------------------------------------------------------

    def truncate(self, path: str, size: int) -> Value:
        found = os.stat(self._at(path))
        if found.st_size == size:
            self.mapped.add(found.st_ino)  # the kernel tells the new time of a FUSE file when nobody has it open any more
        os.truncate(self._at(path), size)
        return os.stat(self._at(path)).st_size

    def rename(self, path: str, new: str) -> Value:
        os.rename(self._at(path), self._at(new))
        return "renamed"

    def rename_new(self, path: str, new: str) -> Value:
        return self._renameat2(path, new, NOREPLACE)

    def exchange(self, path: str, new: str) -> Value:
        return self._renameat2(path, new, EXCHANGE)

    def _renameat2(self, path: str, new: str, flags: int) -> Value:
        names = os.fsencode(self._at(path)), os.fsencode(self._at(new))
        if _libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], flags):
            raise OSError(ctypes.get_errno(), "renameat2")
        return "renamed"

    def link(self, path: str, new: str) -> Value:
        os.link(self._at(path), self._at(new), follow_symlinks=False)
        return os.lstat(self._at(new)).st_nlink

    def symlink(self, target: str, path: str) -> Value:
        os.symlink(target, self._at(path))
        return "linked"

    def save(self, path: str, size: int, seed: int) -> Value:
        temporary = self._at(path) + ".tmp"
        with open(temporary, "wb") as file:
            file.write(made(size, seed))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.replace(temporary, self._at(path))
        except OSError:
            os.unlink(temporary)
            raise
        return "saved"

    def unlink(self, path: str) -> Value:
        os.unlink(self._at(path))
        return "unlinked"

    def mkdir(self, path: str) -> Value:
        os.mkdir(self._at(path))
        return "made"

    def rmdir(self, path: str) -> Value:
        os.rmdir(self._at(path))
        return "removed"

    def listing(self, path: str) -> Value:
        return tuple(sorted(os.listdir(self._at(path))))

    def stat(self, path: str) -> Value:
        return told(os.lstat(self._at(path)))

    def cat(self, path: str) -> Value:
        return Path(self._at(path)).read_bytes()

    def readlink(self, path: str) -> Value:
        return os.readlink(self._at(path))

    def sync_directory(self, path: str) -> Value:
        fd = os.open(self._at(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return "synced"

    # -- attributes ---------------------------------------------------------------------

    def chmod(self, path: str, mode: int) -> Value:
        os.chmod(self._at(path), mode)
        return told(os.stat(self._at(path)))

    def chown(self, path: str, uid: int, gid: int) -> Value:
        os.chown(self._at(path), uid, gid, follow_symlinks=False)
        return told(os.lstat(self._at(path)))

    def utime(self, path: str, when: int) -> Value:
        os.utime(self._at(path), ns=(when, when), follow_symlinks=False)
        return os.lstat(self._at(path)).st_mtime_ns

    def setxattr(self, path: str, name: str, size: int, seed: int) -> Value:
        os.setxattr(self._at(path), name, made(size, seed))
        return os.getxattr(self._at(path), name)

    def removexattr(self, path: str, name: str) -> Value:
        os.removexattr(self._at(path), name)
        return tuple(sorted(os.listxattr(self._at(path))))

    # -- the whole tree -----------------------------------------------------------------

    def picture(self) -> Picture:
        """Every path with what is to be the same on both sides: `told`, a digest or a target, attributes, a time that somebody set."""
        found: Picture = {}
        for folder, directories, files in os.walk(self.root):
            for name in (*directories, *files):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.root)] = self._pictured(path)
        return found

    def _pictured(self, path: str) -> tuple[Value, ...]:
        try:
            status = os.lstat(path)
        except PermissionError:
            return (REFUSED,)
        attributes = _unless_refused(lambda: tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in _attributes(path)))
        return told(status), _unless_refused(lambda: _content(path, status)), attributes, self._time(status)

    def _time(self, status: os.stat_result) -> int:
        """Nanoseconds, if they were set; 0 for the clock's; `UNTOLD` of what was mapped, or cut to its own size: set at any moment."""
        if status.st_ino in self.mapped:
            return UNTOLD
        return status.st_mtime_ns if status.st_mtime_ns < SET_BEFORE_NS else 0


def _unless_refused(look: Callable[[], Value]) -> Value:
    """An ordinary user may not read everything that is theirs: the modes are drawn by lot."""
    try:
        return look()
    except PermissionError:
        return REFUSED


def made(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def told(status: os.stat_result) -> tuple[Value, ...]:
    """Mode and owner; of what is no directory also size and number of names."""
    kind = status.st_mode, status.st_uid, status.st_gid
    return kind if stat.S_ISDIR(status.st_mode) else (*kind, status.st_size, status.st_nlink)


def _attributes(path: str) -> list[str]:
    return sorted(name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user."))


def _content(path: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISDIR(status.st_mode):
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
