"""Bodies as what the store inside is given.

Owns: their pieces as staged bytes, small contents put together.
Must not know: requests, records' meaning.
"""

from __future__ import annotations

import trio

from s3mount.model import Hole, Kept, Piece, Staged
from s3mount.writeback.bodies import read_all
from s3mount.writeback.pins import Body
from s3mount.writeback.records import Record, Stored


def staged(piece: Piece | Stored, bodies: dict[str, Body]) -> Piece:
    """*piece* of a record, whose bodies are *bodies*."""
    if isinstance(piece, Stored):
        return Staged(piece.offset, piece.length, Source(bodies[piece.body], piece.position + piece.length), piece.position)
    return piece


class Source:
    """A body as what an upload reads (`model.StagedBytes`)."""

    path = None

    def __init__(self, body: Body, length: int) -> None:
        self.length = length
        self._body = body

    def read_into(self, position: int, buffer: memoryview) -> None:
        if isinstance(self._body, int):
            read_all(self._body, position, buffer)
            return
        piece = self._body[position : position + len(buffer)]
        if len(piece) != len(buffer):
            raise EOFError(position)
        buffer[:] = piece


async def assembled(record: Record, bodies: dict[str, Body]) -> bytes:
    """All of a small content that keeps nothing."""
    if len(record.pieces) == 1 and isinstance(piece := record.pieces[0], Stored):
        body = bodies[piece.body]
        if isinstance(body, bytes) and len(body) == record.size:
            return body
    whole = bytearray(record.size)
    for piece in record.pieces:
        assert not isinstance(piece, Kept)
        if isinstance(piece, Hole):
            continue
        into = memoryview(whole)[piece.offset : piece.offset + piece.length]
        await trio.to_thread.run_sync(Source(bodies[piece.body], piece.position + piece.length).read_into, piece.position, into)
    return bytes(whole)
