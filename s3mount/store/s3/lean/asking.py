"""One request of the lane, from what is asked to the answer in the caller's hands.

Owns: the line to the bucket's origin and when it is learnt, when a request is sent once more, what a failure says of a mutation.
Must not know: what is asked, which verbs there are.

A1  A request is repeated here in four cases only, each once: a kept connection was closed before it got an answer, and the request is
    harmless or had not left wholly; the credentials were refreshed while it was refused; the service does not take bodies without a hash
    of theirs. All else is the caller's to repeat.
A2  A connection is used again only behind an answer that was received to its end; a cancelled request costs its connection.
A3  A mutation that had not left wholly did not happen: Unavailable. One that had, and got no answer, may have: OutcomeUnknown, or TimedOut
    where the answer did not come in time.
A4  `Unfit` is no failure of the store, and nothing was sent: the caller asks the client instead, for this request or (`fit` False) for
    ever.

The hash of a body costs more than all else of an upload (SHA-256: 0.6 s per GiB, CRC-64: 0.03 s). Over TLS, and where no wire is
(loopback), a signed CRC says as much against accidents, and there is nobody else to guard against: the body goes as UNSIGNED-PAYLOAD. Over
a plain wire, and where the user's settings say `payload_signing_enabled`, it is hashed.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, TypeVar

import trio
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path

from s3mount.errors import OutcomeUnknown, StoreError, TimedOut, Unavailable
from s3mount.model import MiB
from s3mount.store.s3 import answers
from s3mount.store.s3.lean import wire
from s3mount.store.s3.lean.connection import Connection, Gone, Patience
from s3mount.store.s3.lean.origin import Origin, Unfit, learn
from s3mount.store.s3.lean.pool import Pool
from s3mount.store.s3.lean.sign import EMPTY, UNSIGNED, Credentials, Signer
from s3mount.store.s3.options import S3Options

T = TypeVar("T")
Receive = Callable[[Connection, wire.Head], Awaitable[T]]

# Beyond as much (0.6 ms) a body is hashed in a thread, which lets go of the interpreter.
HASHED_HERE = 1 * MiB
# What services say that want to know a body's hash, or cannot read the word that stands in its place.
WANTS_HASH = frozenset({"XAmzContentSHA256Mismatch", "SignatureDoesNotMatch", "NotImplemented"})


class Refused(Exception):
    """The answer is an error; it was received to its end."""

    def __init__(self, refusal: answers.Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request before it has an origin. `asked` is what a refusal speaks of.

    `harmless`: sent twice it does no more than sent once. `thinking_s`: how long the service may be silent, where that is long.
    """

    method: Literal["GET", "HEAD", "PUT", "POST", "DELETE"]
    asked: answers.Asked
    target: Callable[[Origin], str]
    fields: Mapping[str, str]
    body: memoryview | None = None
    harmless: bool = True
    thinking_s: float | None = None


class Asking:
    """Asks one bucket. Parameters as those of Lane; many tasks at once."""

    def __init__(
        self,
        client: Any,
        bucket: str,
        credentials: Credentials | None,
        options: S3Options,
        *,
        extras: Mapping[str, str] | None,
        ca_bundle: str | None,
    ) -> None:
        self.client, self.bucket, self._credentials = client, bucket, credentials
        self._patience = Patience(options.connect_s, options.first_byte_s, options.stall_s)
        self._connections, self._extras, self._ca_bundle = options.connections, dict(extras or {}), ca_bundle
        self.line: Line | None = None
        self._learning = trio.Lock()
        self._closed = False
        self.fit = True

    def close(self) -> None:
        """Close all connections; idempotent."""
        self._closed = True
        if self.line is not None:
            self.line.pool.close()

    def let_go(self) -> None:
        """Called now and then: close connections that have long been idle."""
        if self.line is not None:
            self.line.pool.drop_old()

    async def ask(self, call: Call, receive: Receive[T]) -> T:
        """The answer to one request, through *receive*, on whichever connection; a refusal becomes its StoreError."""
        line = await self._ready()
        identity = await self._identity(line)
        try:
            return await line.exchange(call, identity, receive)
        except Refused as first:
            refused = first
        renewed = await self._identity(line) if refused.refusal.status in (400, 403) else identity
        if renewed != identity or line.hashes_now(call, refused.refusal):
            try:
                return await line.exchange(call, renewed, receive)
            except Refused as second:
                refused = second
        if refused.refusal.status == 416:
            raise ValueError(f"the range does not lie inside {call.asked.key!r}")
        raise answers.error_of(refused.refusal, call.asked, now_s=time.time())

    async def _identity(self, line: Line) -> object:
        try:
            return await line.signer.identity()
        except (BotoCoreError, ClientError) as error:
            raise Unfit(f"There are no credentials ({error}).") from error

    async def prepare(self) -> None:
        """As `Lane.prepare`."""
        try:
            line = await self._ready()
            line.signer.sign(await self._identity(line), "GET", line.origin.bucket_target({}), {})
            await line.pool.open_one()
        except (Unfit, StoreError):
            pass

    async def _ready(self) -> Line:
        """The line to the bucket's origin, which is learnt where it is not known."""
        if not self.fit or self._closed:
            raise Unfit("The lane is closed.", permanent=True)
        if self.line is None:
            async with self._learning:
                if self.line is None:
                    self.line = await self._learn()
        return self.line

    async def _learn(self) -> Line:
        try:
            origin = await learn(self.client, self.bucket, self._extras)
            tls = await trio.to_thread.run_sync(self._tls) if origin.scheme == "https" else None
        except Unfit as unfit:
            self.fit = not unfit.permanent
            raise
        except (BotoCoreError, ClientError, OSError) as error:
            raise Unfit(f"The client does not ask ({error}).") from error
        pool = Pool(origin.host, origin.port, tls, self._patience, limit=self._connections)
        wanted = (self.client.meta.config.s3 or {}).get("payload_signing_enabled")
        return Line(origin, Signer(origin, self._credentials), pool, hashed=bool(wanted) or _overheard(origin))

    def _tls(self) -> ssl.SSLContext:
        """Trusts what the client trusts."""
        context = ssl.create_default_context(cafile=self._ca_bundle or get_cert_path(True))
        context.set_alpn_protocols(["http/1.1"])
        certificate = self.client.meta.config.client_cert
        if certificate:
            context.load_cert_chain(*((certificate,) if isinstance(certificate, str) else certificate))
        return context


def _overheard(origin: Origin) -> bool:
    """Whether what is sent to *origin* could be changed by others on its way."""
    if origin.scheme == "https" or origin.host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(origin.host).is_loopback
    except ValueError:
        return True


class Line:
    """An origin, who asks, and the connections to it. *hashed*: bodies go with their hash."""

    def __init__(self, origin: Origin, signer: Signer, pool: Pool, *, hashed: bool) -> None:
        self.origin, self.signer, self.pool = origin, signer, pool
        self._must_hash = self._hashed = hashed
        self._trusted = False

    async def exchange(self, call: Call, identity: object, receive: Receive[T]) -> T:
        """Ask and receive on one connection; once more on a new one where a kept one was closed meanwhile. Raises Refused."""
        async with self.pool.place():
            request = await self._request(call, identity)
            kept = await self._take(call)
            again = kept.used
            try:
                return await self._converse(kept, call, request, receive)
            except Gone as gone:
                if not again or (kept.asked and not call.harmless):
                    raise judged(gone, call, left=kept.asked) from gone
            except TimedOut:
                self.pool.forget_idle()
                raise
            fresh = await self._take(call, fresh=True)
            try:
                return await self._converse(fresh, call, request, receive)
            except Gone as gone:
                raise judged(gone, call, left=fresh.asked) from gone

    async def _take(self, call: Call, *, fresh: bool = False) -> Connection:
        try:
            return await self.pool.take(fresh=fresh)
        except (Unavailable, TimedOut) as error:
            raise judged(error, call, left=False) from error

    async def _request(self, call: Call, identity: object) -> bytes:
        target = call.target(self.origin)
        fields = self.signer.sign(identity, call.method, target, call.fields, payload=await self._payload(call.body))
        if call.body is not None:
            fields.append(("Content-Length", str(len(call.body))))
        try:
            return wire.request(call.method, target, fields)
        except ValueError as error:
            raise Unfit(f"The request cannot be written: {error}.") from error

    async def _converse(self, connection: Connection, call: Call, request: bytes, receive: Receive[T]) -> T:
        keep = False
        try:
            head = await connection.ask(request, call.body, thinking_s=call.thinking_s)
            if head.status >= 300:
                body = await connection.drain(head, answers.DOCUMENT_BYTES)
                keep = head.keep
                raise Refused(answers.read_refusal(head.status, head.fields, body))
            result = await receive(connection, head)
            keep = head.keep
            self._trusted = self._trusted or call.body is not None
            return result
        except Gone:
            raise
        except (Unavailable, TimedOut) as error:
            raise judged(error, call, left=connection.asked) from error
        finally:
            self.pool.put(connection, keep=keep)

    async def _payload(self, body: memoryview | None) -> str:
        """What the signature says of the body."""
        if not body:
            return EMPTY
        if not self._hashed:
            return UNSIGNED
        if len(body) <= HASHED_HERE:
            return sha256(body).hexdigest()
        hashed = await trio.to_thread.run_sync(sha256, body)
        return str(hashed.hexdigest())

    def hashes_now(self, call: Call, refusal: answers.Refusal) -> bool:
        """Whether *refusal*, as long as no body was taken, may mean that they want a hash; from now on they have one."""
        if not call.body or self._must_hash or self._trusted or refusal.code not in WANTS_HASH:
            return False
        self._hashed = True
        return True


def judged(error: StoreError, call: Call, *, left: bool) -> StoreError:
    """What a failure of the wire is, where *call* had *left* wholly or not (A3)."""
    if not call.asked.mutates:
        return error
    if not left:
        return Unavailable(str(error))
    return error if isinstance(error, TimedOut) else OutcomeUnknown(str(error))
