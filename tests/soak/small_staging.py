"""The command `s3mount`, with a staging folder of the test's own ($STAGING), and renames answered early of more than $ANSWER_KEYS keys."""

from __future__ import annotations

import os

from s3mount.cli import main
from s3mount.fs import rename, staging

if __name__ == "__main__":
    setattr(staging, "_temporary_folder", lambda: os.environ["STAGING"])  # noqa: B010 (it is not exported, on purpose)
    setattr(rename, "ANSWER_KEYS", int(os.environ["ANSWER_KEYS"]))  # noqa: B010
    main.main()
