"""Lane: ranged GET, HEAD and LIST without a client in between.

Owns: what is asked, what of an answer is believed, when a request is repeated here and when it is left to the client.
Must not know: aiobotocore beyond one client to ask how it would ask; retries in general (those are Retrying's).

L1  Bytes reach the caller only from an answer that names the asked range of the asked version; whatever does not fit is an error.
L2  A request is repeated here in three cases only, each once: a kept connection was closed before it got an answer; the credentials were
    refreshed while the request was refused; the bytes of a whole object do not fit its checksum. All else is the caller's to repeat.
L3  A connection is used again only behind an answer that was received to its end; a cancelled request costs its connection.
L4  `Unfit` is no failure of the store: the caller asks the client instead, for this request or (`fit` False) for ever.
L5  After `get_into` has raised, nothing touches the buffer any more.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import trio
from botocore.exceptions import BotoCoreError
from botocore.httpsession import get_cert_path

from s3mount.errors import Corrupt, TimedOut
from s3mount.model import ByteRange, ETag, Key, ObjectInfo, Page
from s3mount.store.api import PAGE_KEYS, Arrived
from s3mount.store.s3 import answers, headers
from s3mount.store.s3.lean import wire
from s3mount.store.s3.lean.connection import Connection, Gone, Patience
from s3mount.store.s3.lean.listing import DOCUMENT_BYTES, parse_listing
from s3mount.store.s3.lean.origin import Origin, Unfit, learn
from s3mount.store.s3.lean.paging import Asked, Listed, Tokens, page_of, parameters
from s3mount.store.s3.lean.pool import Pool
from s3mount.store.s3.lean.ranged import Accepted, Question
from s3mount.store.s3.lean.sign import Credentials, Signer
from s3mount.store.s3.options import S3Options

T = TypeVar("T")
Receive = Callable[[Connection, wire.Head], Awaitable[T]]

# Bytes that do not fit their checksum may have been spoilt on the way: once more, then it is the store.
CHECKSUM_ATTEMPTS = 2
# Pages without an entry in a row (a service may skip what was deleted) before a listing counts as stuck.
EMPTY_PAGES = 100


class _Refused(Exception):
    """The answer is an error; it was received to its end."""

    def __init__(self, refusal: answers.Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class _Call:
    """A request before it has an origin. `key` is what a refusal speaks of."""

    method: Literal["GET", "HEAD"]
    key: str
    target: Callable[[Origin], str]
    fields: Mapping[str, str]


class Lane:
    """Asks for the objects and listings of one *bucket*.

    *client* (aiobotocore) says once how it would ask; *extras* are the parameters of each of its calls (RequestPayer ...).
    *credentials* are the session's (None: not signed), *ca_bundle* is a PEM file that replaces botocore's authorities. Many tasks at once.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        credentials: Credentials | None,
        options: S3Options,
        *,
        extras: Mapping[str, str] | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        self._client, self.bucket, self._credentials = client, bucket, credentials
        self._patience = Patience(options.connect_s, options.first_byte_s, options.stall_s)
        self._connections, self._extras, self._ca_bundle = options.connections, dict(extras or {}), ca_bundle
        self._line: _Line | None = None
        self._learning = trio.Lock()
        self._tokens = Tokens()
        self._closed = False
        self.fit = True

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        self._closed = True
        if self._line is not None:
            self._line.pool.close()

    # -- the verbs ------------------------------------------------------------------------

    async def get_into(
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
        """Fill *buffer* (exactly `span.length` bytes) from the object, and say which version that is. *arrived* hears what is there.

        *size*, where known for *if_match*, lets a span that is the whole object be asked with its checksum. Raises as ObjectStore.get_into,
        Corrupt for bytes that twice did not fit their checksum, and Unfit.
        """
        if len(buffer) != span.length:
            raise ValueError(f"a buffer of {len(buffer)} bytes for {span.length}")
        whole = if_match is not None and (span.start, span.stop) == (0, size)
        question = Question(key, span, if_match, whole)
        call = _Call("GET", key, lambda origin: origin.key_target(key, version_id), question.fields())

        async def receive(connection: Connection, head: wire.Head) -> Accepted:
            accepted = question.accept(head)
            await connection.receive(head, buffer, arrived if accepted.checksum is None else None)
            return accepted

        for _ in range(CHECKSUM_ATTEMPTS):
            accepted = await self._ask(call, receive)
            if accepted.is_fit_by(buffer):
                if arrived is not None:
                    arrived(len(buffer))
                return accepted.info
        raise Corrupt(f"The bytes of {key!r} do not fit the checksum that the store has of them.")

    async def head(self, key: Key, *, if_match: ETag | None = None, version_id: str | None = None) -> Mapping[str, str]:
        """The header fields of a HEAD's answer, their names in lower case. Raises NotFound, PreconditionFailed, Unfit."""
        fields = {} if if_match is None else {"If-Match": headers.etag_out(if_match)}
        call = _Call("HEAD", key, lambda origin: origin.key_target(key, version_id), fields)

        async def receive(connection: Connection, head: wire.Head) -> Mapping[str, str]:
            return head.fields

        return await self._ask(call, receive)

    async def list(self, prefix: str = "", *, delimiter: str = "", after: str = "", limit: int = PAGE_KEYS) -> Page:
        """As ObjectStore.list; also raises Unfit."""
        asked = Asked(prefix, delimiter, after, limit)
        listed = await self._listed(asked, self._tokens.take(asked))
        for _ in range(EMPTY_PAGES):
            if listed.token is None or listed.objects or listed.prefixes:
                break
            listed = await self._listed(asked, listed.token)
        return page_of(listed, asked, self._tokens)

    async def _listed(self, asked: Asked, token: str | None) -> Listed:
        async def receive(connection: Connection, head: wire.Head) -> bytes:
            return await connection.drain(head, DOCUMENT_BYTES)

        call = _Call("GET", "", lambda origin: origin.bucket_target(parameters(asked, token)), {})
        return parse_listing(await self._ask(call, receive))

    # -- asking ---------------------------------------------------------------------------

    async def _ask(self, call: _Call, receive: Receive[T]) -> T:
        """The answer to one request, through *receive*, on whichever connection; a refusal becomes its StoreError."""
        line = await self._ready()
        identity = await self._identity(line)
        try:
            return await line.exchange(call, identity, receive)
        except _Refused as first:
            refused = first
        renewed = await self._identity(line) if refused.refusal.status in (400, 403) else identity
        if renewed != identity:
            try:
                return await line.exchange(call, renewed, receive)
            except _Refused as second:
                refused = second
        if refused.refusal.status == 416:
            raise ValueError(f"the range does not lie inside {call.key!r}")
        raise answers.error_of(refused.refusal, answers.Asked(bucket=self.bucket, key=call.key), now_s=time.time())

    async def _identity(self, line: _Line) -> object:
        try:
            return await line.signer.identity()
        except BotoCoreError as error:
            raise Unfit(f"There are no credentials ({error}).") from error

    async def _ready(self) -> _Line:
        """The line to the bucket's origin, which is learnt where it is not known."""
        if not self.fit or self._closed:
            raise Unfit("The lane is closed.", permanent=True)
        if self._line is None:
            async with self._learning:
                if self._line is None:
                    self._line = await self._learn()
        return self._line

    async def _learn(self) -> _Line:
        try:
            origin = await learn(self._client, self.bucket, self._extras)
            tls = await trio.to_thread.run_sync(self._tls) if origin.scheme == "https" else None
        except Unfit as unfit:
            self.fit = not unfit.permanent
            raise
        except (BotoCoreError, OSError) as error:
            raise Unfit(f"The client does not ask ({error}).") from error
        pool = Pool(origin.host, origin.port, tls, self._patience, limit=self._connections)
        return _Line(origin, Signer(origin, self._credentials), pool)

    def _tls(self) -> ssl.SSLContext:
        """Trusts what the client trusts."""
        context = ssl.create_default_context(cafile=self._ca_bundle or get_cert_path(True))
        context.set_alpn_protocols(["http/1.1"])
        certificate = self._client.meta.config.client_cert
        if certificate:
            context.load_cert_chain(*((certificate,) if isinstance(certificate, str) else certificate))
        return context


class _Line:
    """An origin, who asks, and the connections to it."""

    def __init__(self, origin: Origin, signer: Signer, pool: Pool) -> None:
        self.origin, self.signer, self.pool = origin, signer, pool

    async def exchange(self, call: _Call, identity: object, receive: Receive[T]) -> T:
        """Ask and receive on one connection; once more on a new one where a kept one was closed meanwhile. Raises _Refused."""
        async with self.pool.place():
            target = call.target(self.origin)
            request = wire.request(call.method, target, self.signer.sign(identity, call.method, target, call.fields))
            kept = await self.pool.take()
            again = kept.used
            try:
                return await self._converse(kept, request, receive)
            except TimedOut:
                self.pool.forget_idle()
                raise
            except Gone:
                if not again:
                    raise
            return await self._converse(await self.pool.take(fresh=True), request, receive)

    async def _converse(self, connection: Connection, request: bytes, receive: Receive[T]) -> T:
        keep = False
        try:
            head = await connection.ask(request)
            if head.status >= 300:
                body = await connection.drain(head, answers.DOCUMENT_BYTES)
                keep = head.keep
                raise _Refused(answers.read_refusal(head.status, head.fields, body))
            result = await receive(connection, head)
            keep = head.keep
            return result
        finally:
            self.pool.put(connection, keep=keep)
