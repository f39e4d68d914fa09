"""A service that takes requests and does not answer: every time-out is the one that was asked for."""

from __future__ import annotations

import pytest
import trio

from s3mount.errors import TimedOut
from s3mount.store.s3.answers import Asked
from s3mount.store.s3.client import open_client
from s3mount.store.s3.options import S3Options
from tests.s3.lean.scripted import HANG, scripted
from tests.server.serving import ACCESS_KEY, SECRET_KEY

WORDS = {"list_objects_v2": {}, "head_bucket": {}, "head_object": {"Key": "key"}}


@pytest.mark.slow
@pytest.mark.parametrize("operation", WORDS)
async def test_an_answer_that_does_not_begin_times_out_whoever_asks(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: what goes through botocore waited as long as a body may stall."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    async with scripted() as server:
        server.plan = [[HANG]]
        client = await open_client(S3Options(endpoint=server.url, first_byte_s=0.05, stall_s=60.0))
        try:
            with trio.fail_after(30), pytest.raises(TimedOut):
                await client(operation, Asked(bucket="bucket"), Bucket="bucket", **WORDS[operation])
        finally:
            await client.aclose()
