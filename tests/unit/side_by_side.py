"""A program of its own, with nothing else in its memory: in how many MiB of it something lies that belongs to the directories of a walk.

Says so of the end of the walk, and of the time after what stays was made anew; and how many inodes that are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from s3mount.fs.attrs import Attributes
from s3mount.fs.inode import ROOT, DirInode, FileInode
from s3mount.fs.inodes import Inodes
from s3mount.model import ETag, number_of

FOLDERS, FILES = 50, 600
# Seconds, nanoseconds: so that each has numbers of its own.
MOMENT = 1 << 60


def walked() -> Inodes:
    """Directories, each with its files, as a walk over a store that knows them by ids shows them; then the kernel forgets the files."""
    inodes = Inodes(DirInode(ROOT, "", Attributes(0o040755, 0, 0, 0, 0, 0), marked=False), limit=FOLDERS * FILES)
    for folder in range(FOLDERS):
        stem, times = f"folder-{folder:03}/", (MOMENT + folder, MOMENT - folder, 2 * MOMENT + folder)
        directory = DirInode(number_of(stem), stem, Attributes(0o040755, 0, 0, *times), marked=True)
        directory.seen_s = folder + 0.5
        inodes.add(directory)
        inodes.remember(directory)
        for number in range(FILES):
            key = f"{stem}file-{number:04}"
            file = FileInode(number_of(key), key, etag=ETag(f"{number_of(key):032x}"), file_id=number_of(key))
            inodes.add(file)
            inodes.remember(file)
    for inode in inodes:
        if isinstance(inode, FileInode):
            inodes.forget(inode.ino, 1)
    return inodes


def belongings(inodes: Inodes) -> Iterator[object]:
    for inode in inodes:
        assert isinstance(inode, DirInode)
        its = inode.attributes
        yield from (inode, inode.ino, inode.key, inode.seen_s, its, its.atime_ns, its.mtime_ns, its.ctime_ns)


def stretches(inodes: Inodes) -> int:
    return len({id(one) >> 20 for one in belongings(inodes)})


if __name__ == "__main__":
    inodes = walked()
    before = stretches(inodes)
    inodes.compact()
    inodes.settle(inodes.in_line)
    inodes.compact()
    inodes.check()
    sys.stdout.write(f"{before} {stretches(inodes)} {len(inodes)}\n")
