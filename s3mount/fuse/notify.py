"""The service manager's notification protocol: one datagram per message.

Owns: the socket named by NOTIFY_SOCKET. Silent where there is none, or where nobody listens.
Must not know: what the states mean to us.

Source: sd_notify(3). A name that begins with "@" is in the abstract namespace, where its first byte is zero.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(environ: Mapping[str, str] = os.environ, **values: str) -> bool:
    """Send e.g. `notify(READY="1", STATUS="mounted")`; whether it was sent. Never raises, never waits."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    message = "\n".join(f"{name}={value}" for name, value in values.items()).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as channel:
        try:
            channel.sendto(message, "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return False
    return True
