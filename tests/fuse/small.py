"""The command `s3mount`, with a table of few inodes. For tests of what the kernel is made to forget."""

from __future__ import annotations

from functools import partial

from s3mount.cli import main, mount
from s3mount.fs.options import FsOptions

LIMIT = 50

if __name__ == "__main__":
    setattr(mount, "FsOptions", partial(FsOptions, inode_limit=LIMIT))  # noqa: B010 (it is not exported, on purpose)
    main.main()
