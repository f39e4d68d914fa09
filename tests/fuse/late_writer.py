"""Write DATA into FILE through a shared mapping that is changed after the last descriptor was closed: `late_writer.py FILE DATA`.

(Python's own mmap keeps a duplicate of the descriptor; the libc call does not.) The kernel hands such bytes over between the last FLUSH and
RELEASE, when nobody can be told any more that they could not be kept.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys


def write_late(path: str, data: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    if os.fstat(fd).st_size < len(data):
        os.ftruncate(fd, len(data))
    address = libc.mmap(None, len(data), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    try:
        os.close(fd)
    except OSError:
        pass
    ctypes.memmove(address, data, len(data))
    libc.munmap(address, len(data))


if __name__ == "__main__":
    write_late(sys.argv[1], os.fsencode(sys.argv[2]))
