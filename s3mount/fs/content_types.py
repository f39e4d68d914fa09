"""What kind of content a name promises: the Content-Type of new objects.

Owns: the guess, the same on every machine: Python's own table and a few additions, no file of the system.
Must not know: contents, stores, who wants to know. Pure.
"""

from __future__ import annotations

import mimetypes
from functools import lru_cache
from posixpath import splitext

DEFAULT_TYPE = "application/octet-stream"

# What is compressed as a whole is what the compression makes of it; browsers would unpack what is named by Content-Encoding.
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz", "compress": "application/x-compress"}
# Common, and not in the table of every Python version.
_MORE = {
    ".7z": "application/x-7z-compressed",
    ".avif": "image/avif",
    ".flac": "audio/flac",
    ".gz": "application/gzip",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".mkv": "video/x-matroska",
    ".ogg": "audio/ogg",
    ".parquet": "application/vnd.apache.parquet",
    ".rar": "application/vnd.rar",
    ".toml": "application/toml",
    ".ts": "video/mp2t",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
}


def _table() -> mimetypes.MimeTypes:
    table = mimetypes.MimeTypes(())
    for suffix, kind in _MORE.items():
        table.add_type(kind, suffix)
    return table


_TABLE = _table()


def content_type_of(name: str) -> str:
    """The type that the last suffix of *name* (a key, or a component) stands for; `DEFAULT_TYPE` where it says nothing."""
    return _type_of(splitext(name.rpartition("/")[2])[1])


@lru_cache(maxsize=1024)
def _type_of(suffix: str) -> str:
    # As a path: the table would take "data:..." for a URL.
    kind, encoding = _TABLE.guess_type(f"/x{suffix}")
    if encoding is not None:
        return _COMPRESSED.get(encoding, DEFAULT_TYPE)
    return kind or DEFAULT_TYPE
