"""Attributes between our values and the kernel's.

Owns: the translation of `Attr` to `EntryAttributes` and of a SETATTR request to `AttrChange`, and how long the kernel may
believe an answer.
Must not know: where attributes come from.

The kernel keeps attributes and names for one time-to-live (`--metadata-ttl`): that is the close-to-open promise towards other clients.
What is lasting it keeps for longer: it is made to forget that in time.
With the writeback cache the kernel owns size and times of a regular file while it caches it and passes over what we say; a version that
somebody else committed comes as another inode, never as another size.
"""

from __future__ import annotations

from pyfuse3 import EntryAttributes, SetattrFields, StatvfsData

from s3mount.fs.attrs import AttrChange
from s3mount.model import Attr, Space

# stat(2): st_blocks counts 512 bytes, whatever the block size.
STAT_BLOCK = 512

# What local file systems say; stdio sizes its buffers by it, so a large one costs memory in every program.
BLOCK_SIZE = 4096

# What is lasting ends some day as well: longer than any program works on a tree that it has listed.
LASTING_S = 300.0

# The longest component that Linux passes on.
NAME_MAX = 255

# Object stores do not count files: a number that no program takes for "full".
FILES_FREE = 1 << 32


def to_entry(attr: Attr, *, ttl_s: float) -> EntryAttributes:
    """What the kernel is told of *attr*, to be believed for *ttl_s* seconds, or long if it is lasting."""
    entry = EntryAttributes()
    entry.st_ino = attr.ino
    entry.st_mode = attr.mode
    entry.st_nlink = attr.nlink
    entry.st_uid = attr.uid
    entry.st_gid = attr.gid
    entry.st_rdev = attr.rdev
    entry.st_size = attr.size
    entry.st_blocks = -(-attr.size // STAT_BLOCK)
    entry.st_atime_ns = attr.atime_ns
    entry.st_mtime_ns = attr.mtime_ns
    entry.st_ctime_ns = attr.ctime_ns
    entry.entry_timeout = entry.attr_timeout = max(ttl_s, LASTING_S) if attr.lasting else ttl_s
    return entry


def no_entry(*, ttl_s: float) -> EntryAttributes:
    """The answer "no such name", to be believed for *ttl_s* seconds."""
    entry = EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = ttl_s
    return entry


def dot_entry(ino: int) -> EntryAttributes:
    """`.` or `..` of a listing: the kernel takes the number and the type, and counts no lookup."""
    entry = EntryAttributes()
    entry.st_ino = ino
    entry.st_mode = 0o040755
    return entry


def to_change(attr: EntryAttributes, fields: SetattrFields) -> AttrChange:
    """What a SETATTR request asks for. (Cython gives modes with their type bits, which do not change.)"""
    return AttrChange(
        mode=attr.st_mode if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        size=attr.st_size if fields.update_size else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        ctime_ns=attr.st_ctime_ns if fields.update_ctime else None,
    )


def to_statvfs(space: Space) -> StatvfsData:
    stat = StatvfsData()
    stat.f_bsize = BLOCK_SIZE
    stat.f_frsize = BLOCK_SIZE
    stat.f_blocks = space.total // BLOCK_SIZE
    stat.f_bfree = space.free // BLOCK_SIZE
    stat.f_bavail = stat.f_bfree
    stat.f_files = FILES_FREE
    stat.f_ffree = FILES_FREE
    stat.f_favail = FILES_FREE
    stat.f_namemax = NAME_MAX
    return stat
