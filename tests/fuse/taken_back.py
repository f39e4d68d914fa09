"""The command `s3mount`, whose main loop sees a request and then is so slow to read it that the kernel may take it back meanwhile.

Once only, and only while `armed` lies in the folder FOLDER. `seen` says that there was a request, and `gone` that it is there no more.
"""

from __future__ import annotations

import os
from pathlib import Path

from s3mount.cli import main
from s3mount.fuse import intake

FOLDER = "TAKEN_BACK_FOLDER"


def be_slow(folder: Path) -> None:
    is_readable = intake._is_readable

    def slowly(fd: int, patience_s: float) -> bool:
        there = is_readable(fd, patience_s)
        if there and (folder / "armed").exists():
            (folder / "armed").unlink()
            (folder / "seen").touch()
            while is_readable(fd, 0.0):
                pass
            (folder / "gone").touch()
        return there

    intake._is_readable = slowly


if __name__ == "__main__":
    be_slow(Path(os.environ[FOLDER]))
    main.main()
