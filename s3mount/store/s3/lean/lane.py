"""Lane: ranged GET, HEAD, LIST and the plain mutations, without a client in between.

Owns: what is asked, what of an answer is believed.
Must not know: aiobotocore beyond one client to ask how it would ask; connections and when one is used twice (see asking); retries in
general (those are Retrying's).

L1  Bytes reach the caller only from an answer that names the asked range of the asked version; whatever does not fit is an error.
L2  Bytes of a whole object that do not fit its checksum are asked for once more. All else that is repeated, asking or the caller repeats.
L3  `Unfit` is no failure of the store, and nothing was sent: the caller asks the client instead, for this request or (`fit` False) for
    ever.
L4  After `get_into` has raised, nothing touches the buffer any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3mount.errors import Corrupt
from s3mount.model import ByteRange, ETag, Key, ObjectInfo, Page
from s3mount.store.api import PAGE_KEYS, Arrived
from s3mount.store.s3 import answers, headers
from s3mount.store.s3.lean import wire
from s3mount.store.s3.lean.asking import Asking, Call
from s3mount.store.s3.lean.changing import RESULT_BYTES, Answer, Form, form_of
from s3mount.store.s3.lean.connection import Connection
from s3mount.store.s3.lean.listing import DOCUMENT_BYTES, parse_listing
from s3mount.store.s3.lean.paging import Asked, Listed, Tokens, page_of, parameters
from s3mount.store.s3.lean.ranged import Accepted, Question
from s3mount.store.s3.lean.sign import Credentials
from s3mount.store.s3.options import S3Options

# Bytes that do not fit their checksum may have been spoilt on the way: once more, then it is the store.
CHECKSUM_ATTEMPTS = 2
# Pages without an entry in a row (a service may skip what was deleted) before a listing counts as stuck.
EMPTY_PAGES = 100


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
        self.bucket = bucket
        self._asking = Asking(client, bucket, credentials, options, extras=extras, ca_bundle=ca_bundle)
        self._tokens = Tokens()
        self._forms: dict[str, Form] = {}

    @property
    def fit(self) -> bool:
        """Whether it may be asked at all, with this client."""
        return self._asking.fit

    async def prepare(self) -> None:
        """Learn where and as whom to ask, and connect, so that the first request need not; what hinders that, it will say. Never fails."""
        await self._asking.prepare()

    def let_go(self) -> None:
        """Called now and then: forget tokens that nobody came for, and close connections that have long been idle."""
        self._tokens.let_go()
        self._asking.let_go()

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        self._asking.close()

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
        call = Call(
            method="GET", asked=self._asked(key), target=lambda origin: origin.key_target(key, version_id), fields=question.fields()
        )

        async def receive(connection: Connection, head: wire.Head) -> Accepted:
            accepted = question.accept(head)
            await connection.receive(head, buffer, arrived if accepted.checksum is None else None)
            return accepted

        for _ in range(CHECKSUM_ATTEMPTS):
            accepted = await self._asking.ask(call, receive)
            if accepted.is_fit_by(buffer):
                if arrived is not None:
                    arrived(len(buffer))
                return accepted.info
        raise Corrupt(f"The bytes of {key!r} do not fit the checksum that the store has of them.")

    async def head(self, key: Key, *, if_match: ETag | None = None, version_id: str | None = None) -> Mapping[str, str]:
        """The header fields of a HEAD's answer, their names in lower case. Raises NotFound, PreconditionFailed, Unfit."""
        fields = {} if if_match is None else {"If-Match": headers.etag_out(if_match)}
        call = Call(method="HEAD", asked=self._asked(key), target=lambda origin: origin.key_target(key, version_id), fields=fields)

        async def receive(connection: Connection, head: wire.Head) -> Mapping[str, str]:
            return head.fields

        return await self._asking.ask(call, receive)

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

        call = Call(method="GET", asked=self._asked(""), target=lambda origin: origin.bucket_target(parameters(asked, token)), fields={})
        return parse_listing(await self._asking.ask(call, receive))

    # -- changing -------------------------------------------------------------------------

    async def change(self, operation: str, asked: answers.Asked, given: Mapping[str, Any]) -> Answer:
        """The answer to one of `FORMS`, *given* botocore's parameters, in botocore's words.

        Raises StoreErrors by the table of answers, OutcomeUnknown where no answer came, and Unfit, for what is not plain, before it sends.
        """
        if operation not in self._forms:
            self._forms[operation] = form_of(operation, self._asking.client.meta)
        form = self._forms[operation]
        call = form.call(asked, given)

        async def receive(connection: Connection, head: wire.Head) -> Answer:
            return form.answer(head, await connection.drain(head, RESULT_BYTES))

        return await self._asking.ask(call, receive)

    def _asked(self, key: str) -> answers.Asked:
        return answers.Asked(bucket=self.bucket, key=key)
