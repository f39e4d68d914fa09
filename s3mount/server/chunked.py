"""The aws-chunked encoding: which form a body has, and a push decoder for it.

Owns: `Form`, `ChunkDecoder`: chunk lines, payload, trailers, their bounds, signatures of chunks.
Must not know: sockets, HTTP's own chunking (already undone: boundaries of reads, of outer chunks and of these chunks are unrelated).

    size[;chunk-signature=HEX] CRLF payload CRLF ... 0[;chunk-signature=HEX] CRLF [name:value CRLF ...] CRLF

    LINE --size > 0--> DATA --payload whole--> DATA_END --CRLF--> LINE
    LINE --size = 0--> TRAILER --name:value--> TRAILER --empty line--> DONE
    any --what is not so--> raises, and the decoder must not be fed again

Invariants
1. At most LINE_BYTES are buffered, whatever is fed: payload is handed out as views into what was fed, never copied.
2. Payload that was handed out is verified only when its chunk ends, and complete only when `finish` has returned: until then nobody
   may publish it.
3. More than `expected` bytes are refused as soon as a chunk line announces them; fewer, by `finish`.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Collection

from s3mount.server.s3errors import S3Error
from s3mount.server.sigv4 import SignatureChain
from s3mount.server.wire import S3Request

# A chunk line with a signature has about 90 bytes, a trailer with a checksum or a signature about 140.
LINE_BYTES = 1024
# One checksum and one signature are sent; SDKs allow a few more.
TRAILERS = 16
_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_SIGNATURE = b"chunk-signature="
TRAILER_SIGNATURE = "x-amz-trailer-signature"


class Form(enum.Enum):
    """How a body is sent, by the value of x-amz-content-sha256."""

    PLAIN = ""
    UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"

    @property
    def chunked(self) -> bool:
        return self is not Form.PLAIN

    @property
    def signed(self) -> bool:
        return self in (Form.SIGNED, Form.SIGNED_TRAILER)

    @property
    def trailing(self) -> bool:
        return self in (Form.UNSIGNED_TRAILER, Form.SIGNED_TRAILER)


def form_of(request: S3Request) -> Form:
    """Raises NotImplemented for signatures with elliptic curves.

    A request that says nothing of its hash, as anonymous ones do, is chunked when it names aws-chunked and a decoded length.
    """
    said = request.header("x-amz-content-sha256")
    if said is None:
        named = "aws-chunked" in (request.header("content-encoding") or "") and request.header("x-amz-decoded-content-length") is not None
        return Form.UNSIGNED_TRAILER if named else Form.PLAIN
    if said.startswith("STREAMING-AWS4-ECDSA"):
        raise S3Error("NotImplemented", Header="x-amz-content-sha256")
    return Form(said) if said.startswith("STREAMING-") and said in {form.value for form in Form} else Form.PLAIN


def decoded_length(request: S3Request) -> int:
    """What x-amz-decoded-content-length says. Raises MissingContentLength, InvalidArgument."""
    text = request.header("x-amz-decoded-content-length")
    if text is None:
        raise S3Error("MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header.")
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        name = "x-amz-decoded-content-length"
        raise S3Error("InvalidArgument", f"{name} must be a number", ArgumentName=name, ArgumentValue=text[:64])
    return int(text)


def declared_trailers(request: S3Request) -> frozenset[str]:
    """The names that x-amz-trailer announces, in lower case."""
    return frozenset(name.strip().lower() for value in request.values("x-amz-trailer") for name in value.split(",") if name.strip())


class _State(enum.Enum):
    LINE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()
    DONE = enum.auto()


class ChunkDecoder:
    """Feed it a body in any pieces; it hands out the payload. Not for several threads at once.

    *chain* verifies signatures; a signed form without one (authentication is off) only has them parsed. *expected* is the decoded length
    (None: unknown), *declared* the trailers that were announced: exactly these must come.
    """

    def __init__(
        self, form: Form, *, chain: SignatureChain | None = None, expected: int | None = None, declared: Collection[str] = ()
    ) -> None:
        self.trailers: dict[str, str] = {}
        """Trailing headers by lower-case name; complete after `finish`."""
        self.received = 0
        """Bytes of payload handed out so far."""
        self._form = form
        self._chain = chain if form.signed else None
        self._expected = expected
        self._declared = frozenset(declared) if form.trailing else frozenset()
        self._state = _State.LINE
        self._line = bytearray()
        self._left = 0
        self._announced = 0
        self._signature = ""
        self._trailer_signature: str | None = None
        self._sha = hashlib.sha256()

    @property
    def hashes(self) -> bool:
        """Whether `feed` takes its time."""
        return self._chain is not None

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    def feed(self, data: bytes | memoryview) -> list[memoryview]:
        """The payload in *data*, as views of it. *data* must not change while they are used.

        Hashes what is signed: call it where that may take its time. Raises S3Error: InvalidRequest (malformed), SignatureDoesNotMatch,
        IncompleteBody (longer than announced), MalformedTrailerError.
        """
        view = memoryview(data)
        payload: list[memoryview] = []
        at = 0
        while at < len(view):
            if self._state is _State.DATA:
                piece = view[at : at + self._left]
                self._take(piece)
                payload.append(piece)
                at += len(piece)
            else:
                at = self._gather(view, at)
        return payload

    def finish(self) -> None:
        """The body has ended. Raises IncompleteBody, MalformedTrailerError; returns when everything is there and verified."""
        if self._state is not _State.DONE:
            raise S3Error("IncompleteBody", "The request body terminated unexpectedly")
        if self._expected is not None and self.received != self._expected:
            raise _wrong_length(self.received, self._expected)
        if self._form.trailing and self._declared - self.trailers.keys():
            raise S3Error("MalformedTrailerError")

    def _take(self, piece: memoryview) -> None:
        if self._chain is not None:
            self._sha.update(piece)
        self.received += len(piece)
        self._left -= len(piece)
        if not self._left:
            self._state = _State.DATA_END

    def _gather(self, view: memoryview, at: int) -> int:
        """Take one line, or what there is of it, from *at* on; where the rest begins."""
        window = bytes(view[at : at + LINE_BYTES + 1 - len(self._line)])
        end = window.find(b"\n")
        self._line += window if end < 0 else window[:end]
        if end < 0:
            if len(self._line) > LINE_BYTES:
                raise _malformed("a line is too long")
            return at + len(window)
        line = bytes(self._line)
        self._line.clear()
        self._accept(line)
        return at + end + 1

    def _accept(self, line: bytes) -> None:
        """One whole line without its LF."""
        bare = line.removesuffix(b"\r")
        if self._state is _State.TRAILER:
            self._accept_trailer(bare)
        elif self._state is _State.DONE:
            if bare:
                raise _malformed("something follows the last chunk")
        elif not line.endswith(b"\r"):
            raise _malformed("a line does not end with CRLF")
        elif self._state is _State.LINE:
            self._begin_chunk(bare)
        else:
            if bare:
                raise _malformed("a chunk is longer than its size")
            self._end_chunk()
            self._state = _State.LINE

    def _begin_chunk(self, line: bytes) -> None:
        size_text, _, extension = line.partition(b";")
        if not _SIZE.fullmatch(size_text.rstrip()):
            raise _malformed("a chunk has no size")
        self._signature = self._signature_in(extension.strip())
        self._left = int(size_text, 16)
        self._announced += self._left
        if self._expected is not None and self._announced > self._expected:
            raise _wrong_length(self._announced, self._expected)
        if self._left:
            self._state = _State.DATA
        else:
            self._end_chunk()
            self._state = _State.TRAILER

    def _signature_in(self, extension: bytes) -> str:
        if not self._form.signed:
            return ""
        if not extension.startswith(_SIGNATURE):
            raise _malformed("a chunk has no signature")
        return extension[len(_SIGNATURE) :].decode("latin-1")

    def _end_chunk(self) -> None:
        if self._chain is None:
            return
        if not hmac.compare_digest(self._chain.next(self._sha.hexdigest()).encode(), self._signature.encode()):
            raise S3Error("SignatureDoesNotMatch", SignatureProvided=self._signature[:128])
        self._sha = hashlib.sha256()

    def _accept_trailer(self, line: bytes) -> None:
        if line:
            self._add_trailer(line)
        elif not self._waits_for_signature():
            self._check_trailer_signature()
            self._state = _State.DONE

    def _waits_for_signature(self) -> bool:
        """Some clients end the trailers with LF and an empty line of their own before the signature, as AWS's first examples did."""
        return self._form is Form.SIGNED_TRAILER and bool(self.trailers) and self._trailer_signature is None

    def _add_trailer(self, line: bytes) -> None:
        raw_name, colon, raw_value = line.partition(b":")
        name = raw_name.decode("latin-1").strip().lower()
        value = raw_value.decode("latin-1").strip()
        if not colon or not self._form.trailing or name in self.trailers or len(self.trailers) >= TRAILERS:
            raise S3Error("MalformedTrailerError")
        if name == TRAILER_SIGNATURE and self._trailer_signature is None:
            self._trailer_signature = value
        elif name in self._declared:
            self.trailers[name] = value
        else:
            raise S3Error("MalformedTrailerError")

    def _check_trailer_signature(self) -> None:
        if self._chain is None or self._form is not Form.SIGNED_TRAILER:
            return
        expected = self._chain.trailer(self.trailers.items())
        if not hmac.compare_digest(expected.encode(), (self._trailer_signature or "").encode()):
            raise S3Error("SignatureDoesNotMatch", SignatureProvided=(self._trailer_signature or "")[:128])


def _malformed(how: str) -> S3Error:
    return S3Error("InvalidRequest", f"The aws-chunked body is not well-formed: {how}.")


def _wrong_length(there: int, expected: int) -> S3Error:
    return S3Error("IncompleteBody", ExpectedLength=expected, ActualLength=there)
