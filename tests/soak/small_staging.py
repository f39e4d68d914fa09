"""The command `s3mount`, with a staging folder of the test's own ($STAGING): for tests of what happens when it is full."""

from __future__ import annotations

import os

from s3mount.cli import main
from s3mount.fs import staging

if __name__ == "__main__":
    setattr(staging, "_temporary_folder", lambda: os.environ["STAGING"])  # noqa: B010 (it is not exported, on purpose)
    main.main()
