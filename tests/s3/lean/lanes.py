"""A lane as a mount has it: with a real client beside it, which never sends.

Owns: the client's settings. Nothing that a test asserts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.httpxsession import HttpxSession
from aiobotocore.session import AioSession
from botocore import UNSIGNED

from s3mount.store.s3.lean.lane import Lane
from s3mount.store.s3.options import S3Options
from tests.server.serving import ACCESS_KEY, SECRET_KEY

# One for all tests: it reads botocore's models once.
SESSION = AioSession()
SESSION.set_credentials(ACCESS_KEY, SECRET_KEY)

BUCKET = "the-bucket"


@asynccontextmanager
async def client_of(
    url: str | None, *, region: str = "us-east-1", sign: bool = True, ca: str | None = None, **config: Any
) -> AsyncIterator[Any]:
    more = config if sign else {**config, "signature_version": UNSIGNED}
    settings = AioConfig(http_session_cls=HttpxSession, retries={"max_attempts": 0, "mode": "standard"}, **more)
    async with SESSION.create_client("s3", endpoint_url=url, region_name=region, config=settings, verify=ca) as client:
        yield client


# Clients that a lane has beside it are asked how they would ask, and send nothing: one for each endpoint will do.
ASKED: dict[tuple[str, str | None], Any] = {}


@asynccontextmanager
async def lane_to(url: str, *, bucket: str = BUCKET, options: S3Options | None = None) -> AsyncIterator[Lane]:
    chosen = options or S3Options()
    ca = None if chosen.ca_bundle is None else str(chosen.ca_bundle)
    if (url, ca) not in ASKED:
        async with client_of(url, ca=ca) as client:
            ASKED[url, ca] = client
    lane = Lane(ASKED[url, ca], bucket, await SESSION.get_credentials(), chosen, ca_bundle=ca)
    try:
        yield lane
    finally:
        await lane.aclose()
