"""Looking and reading: the requests that change nothing, by the lean lane where it can, else by the client.

Owns: which of the two is asked, what a name stands for, how a version is kept in sight (`S3Pin`).
Must not know: writing.

R1  A read names its version by If-Match, so that no answer can be a mixture. Where the bucket keeps versions and the answer is that there
    is another one by now, the same bytes are asked for by version id.
R2  Bytes count only when as many came as were asked for; a whole object's checksum is compared where the service sends one.
R3  A pin of a known version sends nothing: an ETag is all that a pin is here.
"""

from __future__ import annotations

from functools import partial

from s3mount.errors import InvalidName, NotFound, PreconditionFailed
from s3mount.model import ByteRange, ETag, Found, Key, ObjectInfo, Page
from s3mount.store.api import PAGE_KEYS, Arrived, ObjectStore
from s3mount.store.rules import changed, require_key
from s3mount.store.s3.answers import Asked, NoSuchRange
from s3mount.store.s3.checksums import verify
from s3mount.store.s3.client import Client, Headers
from s3mount.store.s3.headers import info_of
from s3mount.store.s3.lean import paging
from s3mount.store.s3.lean.lane import Lane
from s3mount.store.s3.lean.origin import Unfit
from s3mount.store.s3.replies import given, headers_of, listed, require_span
from s3mount.store.s3.together import together

# S3's limit for a key, in bytes of UTF-8.
KEY_BYTES = 1024

Seen = ObjectInfo | Page | None


class Reading:
    """Reads *bucket* by way of *lane* (None: not at all) and *client*."""

    def __init__(self, client: Client, bucket: str, lane: Lane | None) -> None:
        self._client = client
        self._bucket = bucket
        self._lane = lane
        self._tokens = paging.Tokens()

    def _fit(self) -> Lane | None:
        return self._lane if self._lane is not None and self._lane.fit else None

    def _asked(self, key: str = "") -> Asked:
        return Asked(bucket=self._bucket, key=key)

    async def prepare(self) -> None:
        """Have the lane ready to ask; never fails."""
        if (lane := self._fit()) is not None:
            await lane.prepare()

    def let_go(self) -> None:
        """Called now and then: see `S3Store.let_go`."""
        self._tokens.let_go()
        if self._lane is not None:
            self._lane.let_go()

    async def aclose(self) -> None:
        """Close the lane's connections; idempotent."""
        if self._lane is not None:
            await self._lane.aclose()

    # -- looking ----------------------------------------------------------------------

    async def head(self, key: Key, *, if_match: ETag | None = None) -> Headers:
        """The answer's headers, names in lower case. Raises NotFound, PreconditionFailed, InvalidName."""
        require_key(key, KEY_BYTES)
        if (lane := self._fit()) is not None:
            try:
                return await lane.head(key, if_match=if_match)
            except Unfit:
                pass
        return headers_of(await self._client("head_object", self._asked(key), Bucket=self._bucket, Key=key, **given(IfMatch=if_match)))

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        """As `ObjectStore.list`."""
        if limit < 1:
            raise ValueError(f"a page of {limit} keys")
        if (lane := self._fit()) is not None:
            try:
                return await lane.list(prefix, delimiter=delimiter, after=after, limit=limit)
            except Unfit:
                pass
        asked = paging.Asked(prefix, delimiter, after, min(limit, PAGE_KEYS))
        token = self._tokens.take(asked)
        where = given(Prefix=prefix, Delimiter=delimiter, ContinuationToken=token)
        behind = given(StartAfter=paging.start_after(asked)) if after and token is None else {}
        answer = await self._client("list_objects_v2", self._asked(), Bucket=self._bucket, MaxKeys=asked.limit, **where, **behind)
        return paging.page_of(listed(answer), asked, self._tokens)

    # -- reading ----------------------------------------------------------------------

    async def read(
        self,
        key: Key,
        span: ByteRange,
        buffer: memoryview,
        *,
        if_match: ETag | None = None,
        version_id: str | None = None,
        size: int | None = None,
        arrived: Arrived | None = None,
    ) -> ObjectInfo:
        """As `ObjectStore.get_into`; with *version_id*, of that version, whichever is current. *size*: the object's, where it is known."""
        if buffer.nbytes != span.length:
            raise ValueError(f"{span.length} bytes do not fill a buffer of {buffer.nbytes}")
        require_key(key, KEY_BYTES)
        if (lane := self._fit()) is not None:
            try:
                return await lane.get_into(key, span, buffer, if_match=if_match, version_id=version_id, size=size, arrived=arrived)
            except Unfit:
                pass
        return await self._read_by_client(key, span, buffer, if_match=if_match, version_id=version_id, size=size)

    async def _read_by_client(
        self, key: Key, span: ByteRange, buffer: memoryview, *, if_match: ETag | None, version_id: str | None, size: int | None
    ) -> ObjectInfo:
        asked = {"Bucket": self._bucket, "Key": key, **given(IfMatch=if_match, VersionId=version_id)}
        # No service sends the checksum of the whole with an answer to a range, be the range the whole.
        whole = if_match is not None and span == ByteRange(0, size or 1) and size is not None
        asked |= {"ChecksumMode": "ENABLED"} if whole else {"Range": f"bytes={span.start}-{span.stop - 1}"}
        try:
            headers = await self._client.get(self._asked(key), buffer, partial(require_span, key, span, if_match), **asked)
        except NoSuchRange as error:
            raise ValueError(str(error)) from None
        if whole:
            verify(headers, buffer, of=key)
        return info_of(key, headers)

    async def pin(self, key: Key, *, if_match: ETag | None, known: ObjectInfo | None) -> S3Pin:
        """As `ObjectStore.pin`."""
        if known is not None and known.key == key:
            return S3Pin(self, known)
        wanted = known.etag if known else if_match
        info = info_of(key, await self.head(key, if_match=wanted))
        if wanted is not None and info.etag != wanted:
            raise changed(key)
        return S3Pin(self, info)


async def find(asked: ObjectStore, name: str) -> Found:
    """As `ObjectStore.find`: a HEAD and a LIST of *asked*, side by side; each is repeated by itself where *asked* repeats."""
    if not name:
        return Found(None, None, implied=True)
    try:
        require_key(name, KEY_BYTES)
    except InvalidName:
        return Found(None, None, implied=False)
    found, below = await together([partial(_object, asked, Key(name)), partial(_below, asked, f"{name}/")], at_once=2)
    assert isinstance(below, Page)
    assert not isinstance(found, Page)
    marker = next((info for info in below.objects if info.key == f"{name}/"), None)
    return Found(found, marker, implied=any(info.key != f"{name}/" for info in below.objects))


async def _object(asked: ObjectStore, key: Key) -> Seen:
    try:
        return await asked.head(key)
    except NotFound:
        return None


async def _below(asked: ObjectStore, prefix: str) -> Seen:
    return await asked.list(prefix, limit=2) if len(prefix.encode()) <= KEY_BYTES else Page((), (), None)


class S3Pin:
    """A version, by its ETag. It stays readable as long as it is the current one, or the bucket keeps it."""

    def __init__(self, reading: Reading, info: ObjectInfo) -> None:
        self._reading = reading
        self._info = info

    @property
    def info(self) -> ObjectInfo:
        return self._info

    def get_into_nowait(self, offset: int, buffer: memoryview) -> bool:
        return not buffer.nbytes

    def view_nowait(self, offset: int, size: int) -> memoryview | None:
        return None

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        if not buffer.nbytes:
            return
        info = self._info
        ask = partial(
            self._reading.read,
            info.key,
            ByteRange(offset, offset + buffer.nbytes),
            buffer,
            if_match=info.etag,
            size=info.size,
            arrived=arrived,
        )
        try:
            await ask()
        except (PreconditionFailed, NotFound):
            if info.version_id is None:
                raise
            await ask(version_id=info.version_id)

    async def aclose(self) -> None:
        """Nothing is held."""


class VersionPin(S3Pin):
    """A version by its id, be it the current one or not."""

    async def get_into(self, offset: int, buffer: memoryview, *, arrived: Arrived | None = None) -> None:
        if buffer.nbytes:
            info, span = self._info, ByteRange(offset, offset + buffer.nbytes)
            await self._reading.read(
                info.key, span, buffer, if_match=info.etag, version_id=info.version_id, size=info.size, arrived=arrived
            )
