"""The command `s3mount`, with a table of few inodes. For tests of what the kernel is made to forget."""

from __future__ import annotations

from s3mount.cli import main, mount

LIMIT = 50

if __name__ == "__main__":
    setattr(mount, "inodes_within", lambda _: LIMIT)  # noqa: B010 (it is not exported, on purpose)
    main.main()
