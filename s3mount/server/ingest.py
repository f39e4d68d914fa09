"""A request's body on its way in: received once, decoded, hashed, written aside, verified.

Owns: what must be right of a body before anything is committed; how much of it is in memory.
Must not know: what the body is for.

    early checks (length, digests that are none, forms)  -> 100 Continue -> blocks -> everything verified -> `Received`

1. Small bodies stay in memory. Others go to a file of the engine's staging folder, block by block (`intake`): threads hash and write them
   while more are received (`lanes`), so that the slowest hash never waits, and a slow disk slows the client down.
2. What is wrong raises before anybody could commit it, and leaves no file. What is right is the caller's, who must `discard` it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from s3mount.engine.contents import StagedFile
from s3mount.engine.engine import Engine
from s3mount.model import Content, GiB, KiB, MiB, Staged
from s3mount.server import checksums
from s3mount.server.calls import SMALL, Call
from s3mount.server.checksums import Algorithm, Claimed
from s3mount.server.chunked import ChunkDecoder, declared_trailers, decoded_length, form_of
from s3mount.server.front import Connection
from s3mount.server.intake import Intake
from s3mount.server.lanes import Block, Lanes, Room, Step
from s3mount.server.s3errors import S3Error
from s3mount.server.xml import limit_of

# S3's limit for one PUT or part.
PUT_BYTES = 5 * GiB
# What a written file is handed to the disk by, while more is received: the sync at the end finds little left.
WRITE_OUT = 8 * MiB
# Hashing so little is quicker than handing it to a thread.
INLINE = 64 * KiB
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request says of its body; `size` None: unknown. `decoder` is there where the body is aws-chunked."""

    size: int | None
    md5: bytes | None
    claim: Claimed | None
    sha256: str | None
    decoder: ChunkDecoder | None


@dataclass(frozen=True, slots=True)
class Received:
    """A body that is what it ought to be: in `data`, or in the staged file."""

    size: int
    md5: bytes
    sums: Mapping[Algorithm, bytes]
    claimed: Algorithm | None
    data: bytes | None
    staged: StagedFile | None = None

    @property
    def etag(self) -> str:
        return self.md5.hex()

    @property
    def content(self) -> bytes | Content:
        if self.staged is None:
            return self.data or b""
        return Content(self.size, (Staged(0, self.size, self.staged, 0),))

    def discard(self) -> None:
        """Nothing stays in staging; what was committed has left it already."""
        if self.staged is not None:
            self.staged.path.unlink(missing_ok=True)


# -- before ---------------------------------------------------------------------------------


def expected(call: Call, *, most: int = PUT_BYTES) -> Expected:
    """Raises MissingContentLength, EntityTooLarge, InvalidDigest, InvalidRequest, NotImplemented: nothing was read then."""
    request, form = call.s3, form_of(call.s3)
    size = decoded_length(request) if form.chunked else _content_length(call)
    if size is not None and size > most:
        raise S3Error("EntityTooLarge", ProposedSize=size, MaxSizeAllowed=most)
    trailers = declared_trailers(request) if form.trailing else frozenset()
    given = request.header("content-md5")
    sha256 = request.header("x-amz-content-sha256") or ""
    return Expected(
        size,
        None if given is None else checksums.decode_md5(given),
        checksums.claimed(request, trailers),
        sha256.lower() if _SHA256.fullmatch(sha256) else None,
        ChunkDecoder(form, chain=call.caller.chain, expected=size, declared=trailers) if form.chunked else None,
    )


def _content_length(call: Call) -> int | None:
    text = call.s3.header("content-length")
    if text is None:
        raise S3Error("MissingContentLength")
    return int(text)


# -- while ----------------------------------------------------------------------------------


async def give_up(call: Call, received: Received) -> None:
    """Nothing of it stays in staging. To remove a large file takes its time: in a thread."""
    if received.staged is not None:
        await call.run(received.discard)


async def receive(call: Call, compute: Iterable[Algorithm] = (), *, most: int = PUT_BYTES) -> Received:
    """The body. Besides what it claims, *compute* these checksums.

    Raises what `expected` raises, BadDigest, XAmzContentSHA256Mismatch, IncompleteBody, SignatureDoesNotMatch, RequestTimeout, NoSpace.
    """
    want = expected(call, most=most)
    algorithms = set(compute) | ({want.claim.algorithm} if want.claim else set())
    hashing = _Hashing(algorithms, sha256=want.sha256 is not None)
    if want.size is not None and want.size <= SMALL:
        return await _receive_small(call, want, hashing)
    return await _receive_large(call, want, hashing)


async def receive_file(call: Call, algorithms: Iterable[Algorithm]) -> Received:
    """The file of a form, whose length nobody knows before."""
    return await _receive_large(call, Expected(None, None, None, None, None), _Hashing(algorithms, sha256=False))


async def receive_document(call: Call, root: str) -> bytes:
    """The XML that a request carries. Raises MaxMessageLengthExceeded, and as `receive`."""
    most = limit_of(root)
    length = call.s3.header("content-length")
    if length is not None and int(length) > 2 * most:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=most)
    if length is None and call.s3.header("transfer-encoding") is None:
        return b""
    try:
        want = expected(call, most=most) if length is not None else Expected(None, None, None, None, None)
    except S3Error as error:
        if error.code != "EntityTooLarge":
            raise
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=most) from None
    hashing = _Hashing({want.claim.algorithm} if want.claim else set(), sha256=want.sha256 is not None)
    data = bytearray()
    async for pieces in _pieces(call, want):
        data += b"".join(pieces)
        if len(data) > most:
            raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=most)
    await call.run(hashing.update, bytes(data))
    return _verified(want, hashing, len(data), data=bytes(data)).data or b""


async def _receive_small(call: Call, want: Expected, hashing: _Hashing) -> Received:
    await send_continue(call)
    data = _there(call, want)
    if data is None:
        data = b"".join([piece async for pieces in _pieces(call, want) for piece in pieces])
    if len(data) <= INLINE:
        hashing.update(data)
    else:
        await call.run(hashing.update, data)
    return _verified(want, hashing, len(data), data=data)


def _there(call: Call, want: Expected) -> bytes | None:
    """The payload where it came with the headers, as most small ones do; None where one has to wait for it."""
    content = call.web.content
    if call.source is not None or not content.is_eof() or content.exception() is not None:
        return None
    raw = content.read_nowait()
    call.received += len(raw)
    if want.decoder is None:
        return raw
    data = b"".join(want.decoder.feed(raw))
    want.decoder.finish()
    return data


async def _receive_large(call: Call, want: Expected, hashing: _Hashing) -> Received:
    target = await call.run(_Target, call.engine)
    try:
        size = await _fill(call, want, hashing, target)
        staged = StagedFile(target.path, size, target.digest()) if size else None
        received = _verified(want, hashing, size, data=None, staged=staged)
    except BaseException:
        target.discard()
        raise
    finally:
        target.close()
    if staged is None:
        target.discard()
    return received


async def _fill(call: Call, want: Expected, hashing: _Hashing, target: _Target) -> int:
    """Hash and write while more is received."""
    size, room = 0, call.service.room
    steps = [*hashing.steps(), target.write]
    lanes = Lanes([_in_a_row(steps)] if room.crowded else steps, call.service.body_threads, room)
    lent: deque[bytearray] = deque()
    diverted = None
    try:
        diverted = await _diverted(call, want)
        async for memory, block in _gathered(call, want) if diverted is None else _taken(call, want, *diverted):
            size += sum(map(len, block))
            if memory is not None:
                lent.append(memory)
            await lanes.give(block)
            _take_back(room, lent, lanes.under_way)
        await lanes.finish()
        return size
    finally:
        if diverted is not None and diverted[1] is not None:
            diverted[1].give_up()
        await lanes.end()
        _take_back(room, lent, lanes.under_way)


def _in_a_row(steps: Sequence[Step]) -> Step:
    """All of them, one after the other, while the block is in the processor's cache: others keep the other processors busy."""

    def work(block: Block) -> None:
        for step in steps:
            step(block)

    return work


def _take_back(room: Room, lent: deque[bytearray], under_way: int) -> None:
    while len(lent) > under_way:
        room.take_back(lent.popleft())


async def _gathered(call: Call, want: Expected) -> AsyncIterator[tuple[None, Block]]:
    """Blocks of what aiohttp's stream has."""
    block: list[bytes | memoryview] = []
    held = 0
    async for pieces in _pieces(call, want):
        block += pieces
        held += sum(map(len, pieces))
        if held >= call.service.room.block:
            yield None, block
            held, block = 0, []
    if held:
        yield None, block


async def _diverted(call: Call, want: Expected) -> tuple[list[bytes], Intake | None] | None:
    """What is here of the body, and where the rest comes; None where it has to come through aiohttp. Raises IncompleteBody."""
    connection, length = call.web.protocol, call.s3.header("content-length")
    if call.source is not None or length is None or not isinstance(connection, Connection):
        return None
    await send_continue(call)
    try:
        return connection.divert(call.web.content, int(length), call.service.room)
    except Exception as error:  # aiohttp's: the client is gone
        raise S3Error("IncompleteBody") from error


async def _taken(call: Call, want: Expected, first: list[bytes], intake: Intake | None) -> AsyncIterator[tuple[bytearray | None, Block]]:
    """Blocks of a body that is diverted. Raises IncompleteBody, RequestTimeout, and what decoding finds."""
    for data in first:
        call.received += len(data)
        yield None, await _decoded(call, want.decoder, data)
    while intake is not None and (found := await intake.next(call.service.body_seconds)) is not None:
        memory, count = found
        call.received += count
        yield memory, await _decoded(call, want.decoder, memoryview(memory)[:count])
    if want.decoder is not None:
        want.decoder.finish()


async def _pieces(call: Call, want: Expected) -> AsyncIterator[Sequence[bytes | memoryview]]:
    """The payload as it comes. Raises IncompleteBody, RequestTimeout, and what decoding finds."""
    await send_continue(call)
    async for chunk in _chunks(call):
        yield await _decoded(call, want.decoder, chunk)
    if want.decoder is not None:
        want.decoder.finish()


async def _decoded(call: Call, decoder: ChunkDecoder | None, chunk: bytes | memoryview) -> Block:
    if decoder is None:
        return (chunk,)
    if len(chunk) <= INLINE or not decoder.hashes:
        return decoder.feed(chunk)
    return await call.run(decoder.feed, chunk)


async def _chunks(call: Call) -> AsyncIterator[bytes]:
    content = call.source or call.web.content
    while True:
        try:
            async with asyncio.timeout(call.service.body_seconds):
                chunk = await content.readany()
        except TimeoutError:
            raise S3Error("RequestTimeout") from None
        except Exception as error:  # aiohttp's payload errors: the body ended early, or its own chunking is broken
            raise S3Error("IncompleteBody") from error
        if not chunk:
            return
        call.received += len(chunk)
        yield chunk


async def send_continue(call: Call) -> None:
    """Tell a client that waits for it to send its body, an empty one too; once. See `app` for those that never hear it."""
    if call.continued:
        return
    call.continued = True
    if call.expects:
        transport = call.web.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class _Hashing:
    """All digests of one body. Each step may run in a thread of its own, block after block."""

    def __init__(self, algorithms: Iterable[Algorithm], *, sha256: bool) -> None:
        self._md5 = checksums.md5()
        self._sums = {algorithm: checksums.hasher(algorithm) for algorithm in algorithms}
        self._sha = hashlib.sha256() if sha256 else None

    def steps(self) -> list[Step]:
        return [self._update_md5, *([self._update_rest] if self._sums or self._sha else [])]

    def update(self, data: bytes) -> None:
        self._update_md5((data,))
        self._update_rest((data,))

    def _update_md5(self, block: Block) -> None:
        for piece in block:
            self._md5.update(piece)

    def _update_rest(self, block: Block) -> None:
        for piece in block:
            for one in self._sums.values():
                one.update(piece)
            if self._sha is not None:
                self._sha.update(piece)

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    @property
    def sums(self) -> dict[Algorithm, bytes]:
        return {algorithm: one.digest() for algorithm, one in self._sums.items()}

    @property
    def sha256(self) -> str:
        return self._sha.hexdigest() if self._sha else ""


class _Target:
    """The staged file of one body: written and hashed in one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self.path: Path = engine.bodies.stage_path()
        self._disk = engine.disk
        with engine.os_errors():
            self._fd = self._disk.create(self.path)
        self._errors = engine.os_errors
        self._size = 0
        self._out = 0
        self._hash = blake3()

    def write(self, block: Block) -> None:
        with self._errors():
            self._disk.write_all(self._fd, block, self._size)
        for piece in block:
            self._hash.update(piece)
            self._size += len(piece)
        if self._size - self._out >= WRITE_OUT:
            self._disk.begin_sync(self._fd, self._out, self._size - self._out)
            self._out = self._size

    def digest(self) -> bytes:
        return bytes(self._hash.digest())

    def close(self) -> None:
        os.close(self._fd)

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


# -- behind ---------------------------------------------------------------------------------


def _verified(want: Expected, hashing: _Hashing, size: int, *, data: bytes | None, staged: StagedFile | None = None) -> Received:
    """Raises IncompleteBody, BadDigest, XAmzContentSHA256Mismatch."""
    if want.size is not None and size != want.size:
        raise S3Error("IncompleteBody", ExpectedLength=want.size, ActualLength=size)
    if want.sha256 is not None and not hmac.compare_digest(want.sha256, hashing.sha256):
        fields = {"ClientComputedContentSHA256": want.sha256, "S3ComputedContentSHA256": hashing.sha256}
        raise S3Error("XAmzContentSHA256Mismatch", **fields)
    md5, sums = hashing.md5, hashing.sums
    if want.md5 is not None and want.md5 != md5:
        raise checksums.bad_digest()
    claimed = want.claim
    if claimed is not None and _claimed_digest(want, claimed) != sums[claimed.algorithm]:
        raise checksums.bad_digest(claimed.algorithm)
    return Received(size, md5, sums, claimed.algorithm if claimed else None, data, staged)


def _claimed_digest(want: Expected, claim: Claimed) -> bytes:
    if claim.digest is not None:
        return claim.digest
    assert want.decoder is not None, "only a chunked body has trailers"
    return checksums.decode(claim.algorithm, want.decoder.trailers.get(claim.algorithm.header, ""))
