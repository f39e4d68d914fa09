"""HTTP/1.1 as bytes: a request to be sent, an answer's head, its framing, chunked bodies.

Owns: the grammar, its bounds, and what is refused.
Must not know: sockets, S3, time. Pure: bytes in, values out.

Nothing that a server says is believed further than it can be checked. An answer that breaks the grammar raises `Garbled`, and its
connection is not used again: once head and body are in doubt, everything behind them is. The rules, each against a way to be fooled:

W1  A head ends within `HEAD_BYTES` and has at most `HEAD_FIELDS` fields.
W2  A body is framed by Content-Length or by chunks, never by both; repeated Content-Lengths agree; neither means: until the server closes.
W3  Numbers are plain digits: no sign, no blanks, no underscore, no other script's digits.
W4  A connection is kept only for HTTP/1.1 without `Connection: close`, and only behind a framed body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from s3mount.errors import Unavailable

# Bytes. S3 answers with about 500; user metadata may add 2 KiB. The bound is http.client's for one line, here for all of them.
HEAD_BYTES = 64 * 1024
HEAD_FIELDS = 256
# Bytes of one chunk's size line or of all trailers: enough for any extension in use.
LINE_BYTES = 4096
# Hex digits of a chunk's size: 16 EiB are beyond any object.
SIZE_DIGITS = 15

_BODILESS = frozenset({204, 304})


class Garbled(Unavailable):
    """The answer is not HTTP as it should be: ask again on another connection."""


@dataclass(frozen=True, slots=True)
class Head:
    """An answer without its body. `fields` have lower-case names; the values of a repeated one are joined by ", ".

    `length` is the body's bytes; None where it is `chunked` or ends with the connection. `keep`: the connection may carry another request.
    """

    status: int
    fields: Mapping[str, str]
    length: int | None
    chunked: bool
    keep: bool


def request(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """A request without a body. Raises ValueError for a field or target that would not stay one."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    if not target.isascii() or any(sign in target for sign in " \r\n\0"):
        raise ValueError(f"not a request target: {target!r}")
    text = "\r\n".join(lines)
    if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1 or "\0" in text:
        raise ValueError("a header field holds a line break")
    return (text + "\r\n\r\n").encode("latin-1")


def find_head(received: bytes | bytearray) -> int:
    """Where the body begins in *received*; 0 while the head is not whole. Raises Garbled beyond the bound."""
    end = received.find(b"\r\n\r\n", 0, HEAD_BYTES)
    if end >= 0:
        return end + 4
    if len(received) >= HEAD_BYTES:
        raise Garbled(f"The endpoint's answer has a head of more than {HEAD_BYTES} bytes.")
    return 0


def parse_head(raw: bytes, *, bodiless: bool = False) -> Head:
    """The head that *raw* (with its blank line) is; *bodiless*: it answers a HEAD, whatever it says of a length. Raises Garbled."""
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    version, status = _status(first)
    if len(lines) > HEAD_FIELDS:
        raise Garbled(f"The endpoint's answer has more than {HEAD_FIELDS} header fields.")
    fields = _fields(lines)
    length, chunked = _framing(fields) if status >= 200 and status not in _BODILESS and not bodiless else (0, False)
    framed = chunked or length is not None
    tokens = {token.strip() for token in fields.get("connection", "").lower().split(",")}
    return Head(status, fields, length, chunked, framed and version == "HTTP/1.1" and "close" not in tokens)


def _status(line: str) -> tuple[str, int]:
    version, _, rest = line.partition(" ")
    code = rest[:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or len(code) != 3 or not _digits(code) or rest[3:4] not in ("", " ") or code < "100":
        raise Garbled(f"The endpoint does not speak HTTP/1.1: it began with {line[:40]!r}.")
    return version, int(code)


def _fields(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\r" in line or "\n" in line or "\0" in line:
            raise Garbled(f"The endpoint's answer has a malformed header field: {line[:40]!r}.")
        name, value = name.lower(), value.strip(" \t")
        if name == "content-length" and fields.get(name, value) != value:
            raise Garbled("The endpoint's answer has two lengths.")
        if name in fields and name != "content-length":
            value = f"{fields[name]}, {value}"
        fields[name] = value
    return fields


def _framing(fields: Mapping[str, str]) -> tuple[int | None, bool]:
    """Length and chunked."""
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if coding is not None:
        if length is not None:
            raise Garbled("The endpoint's answer has a length and chunks as well.")
        if coding.lower() != "chunked":
            raise Garbled(f"The endpoint's answer has an unknown transfer coding: {coding[:40]!r}.")
        return None, True
    return (None if length is None else number(length)), False


def number(text: str) -> int:
    """A count of bytes as a server writes it. Raises Garbled."""
    if not _digits(text) or len(text) > 19:
        raise Garbled(f"The endpoint's answer has {text[:40]!r} where a number belongs.")
    return int(text)


def content_range(text: str) -> tuple[int, int, int]:
    """Start, stop (exclusive) and the whole object's size, of a Content-Range. Raises Garbled."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    start, _, last = span.partition("-")
    found = number(start), number(last) + 1, number(total)
    if unit.lower() != "bytes" or not found[0] < found[1] <= found[2]:
        raise Garbled(f"The endpoint's answer has an impossible range: {text[:60]!r}.")
    return found


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


# SIZE --"n"--> DATA --n bytes--> CRLF --> SIZE ;  SIZE --"0"--> TRAILER --blank line--> DONE (absorbing)
class _State(Enum):
    SIZE = "size"
    DATA = "data"
    CRLF = "crlf"
    TRAILER = "trailer"
    DONE = "done"


class Chunks:
    """Takes a chunked body in portions of any size and gives its bytes.

    `done` once the last chunk and its trailers are over; `rest` is what came behind them (nothing, from an honest server).
    """

    def __init__(self) -> None:
        self._state = _State.SIZE
        self._pending = bytearray()
        self._left = 0
        self._trailers = 0

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    @property
    def rest(self) -> bytes:
        return bytes(self._pending) if self.done else b""

    def feed(self, portion: bytes | bytearray | memoryview) -> bytes:
        """The body's bytes that *portion* completes. Raises Garbled."""
        self._pending += portion
        out = bytearray()
        while self._step(out):
            pass
        return bytes(out)

    def _step(self, out: bytearray) -> bool:
        """One transition; False where it needs more bytes."""
        if self._state is _State.DATA:
            return self._data(out)
        if self._state is _State.DONE:
            return False
        line = self._line()
        if line is None:
            return False
        if self._state is _State.SIZE:
            self._left = self._size(line)
            self._state = _State.DATA if self._left else _State.TRAILER
        elif self._state is _State.CRLF:
            if line:
                raise Garbled("The endpoint's answer has a chunk longer than it said.")
            self._state = _State.SIZE
        elif not line:
            self._state = _State.DONE
        return True

    def _data(self, out: bytearray) -> bool:
        portion = self._pending[: self._left]
        if not portion:
            return False
        out += portion
        del self._pending[: len(portion)]
        self._left -= len(portion)
        if not self._left:
            self._state = _State.CRLF
        return True

    def _line(self) -> bytes | None:
        end = self._pending.find(b"\r\n")
        self._trailers += end + 2 if self._state is _State.TRAILER and end >= 0 else 0
        if max(end, self._trailers) > LINE_BYTES or (end < 0 and len(self._pending) > LINE_BYTES):
            raise Garbled("The endpoint's answer has chunks that do not end.")
        if end < 0:
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 2]
        return line

    @staticmethod
    def _size(line: bytes) -> int:
        digits = line.partition(b";")[0].strip(b" \t")
        if not digits or len(digits) > SIZE_DIGITS or digits.strip(b"0123456789abcdefABCDEF"):
            raise Garbled(f"The endpoint's answer has a malformed chunk: {line[:40]!r}.")
        return int(digits, 16)
