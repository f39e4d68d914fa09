"""A connection that has ended by itself is not ended again."""

from __future__ import annotations

import asyncio
import socket

from s3mount.server.outgest import _abort


def test_a_transport_that_was_closed_with_bytes_to_send_and_has_ended_is_left_alone() -> None:
    """Regression: asyncio knows no loop for it any more, and the server called that a defect of its own."""

    async def act() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
            theirs.setblocking(False)
            transport.write(bytes(1 << 22))
            assert transport.get_write_buffer_size()
            transport.close()
            while transport.get_write_buffer_size():
                await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
            await asyncio.sleep(0)
            _abort(transport)

    asyncio.run(act())
