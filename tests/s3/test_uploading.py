"""How many requests contents are made objects with at a time."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio.testing

from s3mount.cli.remote import LIMITS
from s3mount.model import ByteRange, ETag, GiB, Key, ObjectInfo, Part, Upload
from s3mount.store.api import Commit
from s3mount.store.memory import LIKE_S3, MemoryStore
from s3mount.store.s3.options import S3Options
from s3mount.store.s3.uploading import COPIES_AT_ONCE, Uploading

SIZE = 6 * GiB


class Enormous(MemoryStore):
    """Believes what parts are said to be."""

    async def complete_upload(self, upload: Upload, parts: Sequence[Part]) -> ObjectInfo:
        await self.abort_upload(upload)
        return ObjectInfo(upload.key, sum(part.size for part in parts), ETag("whole"), 0)


async def test_many_copies_of_enormous_objects_leave_connections_to_others() -> None:
    """Regression: eight of them had 128 parts copied at once, more than there are connections, and whoever looked waited for these."""
    most, goes_on = [0], trio.Event()

    async def copy_part(upload: Upload, number: int, *, source: ObjectInfo, span: ByteRange) -> Part:
        most[0] += 1
        await goes_on.wait()
        return Part(number, span.length, ETag(str(number)))

    uploading = Uploading(Enormous(LIKE_S3), copy_part)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            source = ObjectInfo(Key(f"from/{number}"), SIZE, ETag("e"), 0)
            nursery.start_soon(uploading.copy, source, Key(f"to/{number}"), Commit())
        await trio.testing.wait_all_tasks_blocked()
        assert most[0] == COPIES_AT_ONCE
        goes_on.set()
    assert S3Options().connections - COPIES_AT_ONCE - LIMITS.read >= 8
