"""The command `s3mount`, on a store that is slow or fails for keys that say so. For tests of what must live with such a store.

slow/...        each commit takes two seconds
refused/...     each commit fails for good
hung/...        a commit never ends
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from s3mount.cli import main, mount
from s3mount.cli import open_store as opener
from s3mount.cli.store_options import Choice
from s3mount.config import StoreUrl
from s3mount.errors import AccessDenied
from s3mount.store.api import ObjectStore
from s3mount.store.wrap.base import Kind, Op
from s3mount.store.wrap.faulty import NOTHING, Fault, Faulty

SLOW_S = 2.0
SLOWER_S = 5.0
HANG_S = 1e6

FAULTS = {
    "slow": Fault(delay=SLOW_S),
    "slower": Fault(delay=SLOWER_S),
    "refused": Fault(before=AccessDenied("This bucket takes nothing below refused/.")),
    "hung": Fault(delay=HANG_S),
}


def plan(op: Op) -> Fault:
    """Raises LookupError below defect/."""
    top, _, below = op.key.partition("/")
    if top == "defect" and below and op.kind is Kind.COMMIT:
        raise LookupError("a defect")
    return FAULTS.get(top, NOTHING) if below and op.kind is Kind.COMMIT else NOTHING


@asynccontextmanager
async def open_faulty(url: StoreUrl, choice: Choice, **options: Any) -> AsyncIterator[ObjectStore]:
    async with opener.open_store(url, choice, **options) as store:
        yield Faulty(store, plan)


if __name__ == "__main__":
    setattr(mount, "open_store", open_faulty)  # noqa: B010 (it is not exported, on purpose)
    main.main()
