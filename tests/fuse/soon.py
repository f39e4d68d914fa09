"""The command `s3mount`, in a hurry: what nobody looks at is forgotten after a moment. For tests of what the kernel is made to forget."""

from __future__ import annotations

from s3mount.cli import main
from s3mount.fs import cooling

QUIET_S, FEW, ANSWERED_STEPS = 0.5, 0, 240

if __name__ == "__main__":
    cooling.QUIET_S = cooling.FOLLOWED_QUIET_S = QUIET_S
    cooling.FEW, cooling.ANSWERED_STEPS = FEW, ANSWERED_STEPS
    main.main()
