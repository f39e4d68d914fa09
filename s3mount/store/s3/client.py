"""One aiobotocore client for the life of a store: its settings, its requests, its end.

Owns: the translation of S3Options into botocore's settings, the number of requests at once, what goes with every request.
Must not know: objects, the store protocol.

C1  Nothing is sent twice by the client: botocore's retries are off, its redirects between regions too (Retrying repeats, the user names
    the region).
C2  Every request has time-outs: to connect, to the first byte and between bytes, either way. A completion or a copy may think longer.
C3  Credentials are botocore's chain, renewed by it when they are about to expire.
C4  Times arrive as text: botocore's own parser of times costs 40 of the 50 ms that a page of 1000 keys takes.
"""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio
from aiobotocore.config import AioConfig
from aiobotocore.httpxsession import HttpxSession
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.loaders import Loader

import s3mount
from s3mount.errors import Unavailable, UsageError
from s3mount.store.s3.answers import Asked
from s3mount.store.s3.failures import FAILURES, failure_of
from s3mount.store.s3.options import THINKING, S3Options

# S3's eldest region; a service of one's own seldom minds which it is.
DEFAULT_REGION = "us-east-1"

Answer = Mapping[str, Any]
Headers = Mapping[str, str]


class Client:
    """Requests to one S3 service. Made by `open_client`."""

    def __init__(self, client: Any, stack: AsyncExitStack, options: S3Options, *, credentials: Any, ca_bundle: str | None) -> None:
        self.client = client
        self.credentials = credentials
        self.ca_bundle = ca_bundle
        self.options = options
        self.region: str = client.meta.region_name
        self.endpoint: str = client.meta.endpoint_url
        self._stack = stack
        self._slots = trio.CapacityLimiter(options.connections)
        self._always = _always(options)
        self._taken: dict[str, dict[str, Any]] = {}
        events = client.meta.events
        events.register_last("before-call.s3", functools.partial(_prepare, options))
        events.register_first("choose-signer.s3", _sign_urls)

    async def __call__(self, operation: str, asked: Asked, **parameters: Any) -> Answer:
        """The answer to one request; *operation* is botocore's method name. Raises StoreErrors, UsageError."""
        async with self._sending(asked):
            return await self._send(operation, parameters)

    async def get(self, asked: Asked, buffer: memoryview, accept: Callable[[Headers], None], **parameters: Any) -> Headers:
        """Fill *buffer* with the answer to GetObject, once *accept* has seen its headers; a body of another length is Unavailable."""
        async with self._sending(asked):
            answer = await self._send("get_object", parameters)
            headers: Headers = answer["ResponseMetadata"]["HTTPHeaders"]
            async with answer["Body"] as body:
                accept(headers)
                done = 0
                async for piece in body.raw_stream.aiter_raw():
                    if done + len(piece) > buffer.nbytes:
                        raise Unavailable(f"The store sends more of {asked.key!r} than it announced.")
                    buffer[done : done + len(piece)] = piece
                    done += len(piece)
            if done != buffer.nbytes:
                raise Unavailable(f"The store sent {done} of {buffer.nbytes} bytes of {asked.key!r}.")
            return headers

    @asynccontextmanager
    async def _sending(self, asked: Asked) -> AsyncIterator[None]:
        """A turn among the requests, to the end of the answer; what fails meanwhile becomes ours."""
        borrower = object()
        await self._slots.acquire_on_behalf_of(borrower)
        try:
            yield
        except FAILURES as error:
            raise failure_of(error, asked, endpoint=self.endpoint) from error
        finally:
            self._slots.release_on_behalf_of(borrower)

    async def _send(self, operation: str, parameters: dict[str, Any]) -> Answer:
        given = self.going_with(operation)
        answer: Answer = await getattr(self.client, operation)(**given, **parameters)
        return answer

    def going_with(self, operation: str) -> dict[str, Any]:
        """The parameters that go with every request, as far as *operation* knows them."""
        if operation in self._taken:
            return self._taken[operation]
        model = self.client.meta.service_model.operation_model(self.client.meta.method_to_api_mapping[operation])
        known = model.input_shape.members
        self._taken[operation] = {name: value for name, value in self._always.items() if name in known}
        return self._taken[operation]

    async def aclose(self) -> None:
        """Close every connection; idempotent."""
        await self._stack.aclose()


async def open_client(options: S3Options) -> Client:
    """A client for *options*. Sends nothing to the service (credentials may be looked up). Raises UsageError, AccessDenied."""
    stack = AsyncExitStack()
    try:
        session = AioSession(profile=options.profile)
        session.register_component("data_loader", _service_models())
        session.user_agent_name, session.user_agent_version = "s3mount", s3mount.__version__
        # The credential chain asks with the same kind of HTTP session: on trio, aiohttp could not.
        session.set_default_client_config(AioConfig(http_session_cls=HttpxSession))
        if region := options.region or os.environ.get("AWS_REGION"):
            # AWS_REGION is what all other SDKs read. Who gives credentials for a role is asked in the same region.
            session.set_config_variable("region", region)
        session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
        credentials = None if options.no_sign else await session.get_credentials()
        ca_bundle = str(options.ca_bundle) if options.ca_bundle else session.get_config_variable("ca_bundle")
        plain = (options.endpoint or "").startswith("http://")
        if not plain or options.ca_bundle:
            _require_authorities(ca_bundle)
        client = await stack.enter_async_context(
            session.create_client(
                "s3",
                region_name=session.get_config_variable("region") or DEFAULT_REGION,
                endpoint_url=options.endpoint,
                # Reading the authorities takes as long as the rest; nobody is to be trusted where nothing is encrypted.
                verify=False if plain else ca_bundle,
                config=_settings(options),
            )
        )
    except FAILURES as error:
        await stack.aclose()
        raise failure_of(error, Asked(bucket=""), endpoint=options.endpoint or "AWS") from error
    except ValueError as error:
        await stack.aclose()
        raise UsageError(f"{options.endpoint!r} is no endpoint: {str(error).rstrip('.')}.") from error
    return Client(client, stack, options, credentials=credentials, ca_bundle=ca_bundle)


# What botocore is asked for here: S3, and what its credential chain asks.
SERVICES = ["s3", "signin", "sso", "sso-oidc", "sts"]


class _Models(Loader):  # type: ignore[misc]  # botocore has no types
    """botocore's descriptions of services. It would look through the folders of all 400 to know which there are."""

    def list_available_services(self, type_name: str) -> list[str]:
        return SERVICES


@functools.cache
def _service_models() -> Loader:
    """The description of S3, read once per process: a third of the time that a client takes to open."""
    return _Models()


def _require_authorities(ca_bundle: str | None) -> None:
    """Raise UsageError for a file that is none, or holds no certificate: at the first request it would look like a failure of the wire."""
    try:
        if ca_bundle:
            ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ValueError) as error:
        raise UsageError(f"{ca_bundle} cannot be used as the authorities to trust: {error}.") from error


def _settings(options: S3Options) -> AioConfig:
    return AioConfig(
        http_session_cls=HttpxSession,
        connector_args={"write_timeout": options.stall_s, "pool_timeout": options.connect_s},
        connect_timeout=options.connect_s,
        read_timeout=max(options.first_byte_s, options.stall_s),
        max_pool_connections=options.connections,
        retries={"total_max_attempts": 1, "mode": "standard"},
        signature_version=UNSIGNED if options.no_sign else None,
        s3={"addressing_style": options.addressing},
        use_dualstack_endpoint=options.dual_stack or None,
        # Checksums are ours: computed once, over memory, and sent as a header (checksums.py).
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def _always(options: S3Options) -> dict[str, Any]:
    given = {
        "RequestPayer": "requester" if options.requester_pays else None,
        "ExpectedBucketOwner": options.bucket_owner,
        "ExpectedSourceBucketOwner": options.bucket_owner,
        "ServerSideEncryption": options.sse or ("aws:kms" if options.sse_kms_key_id else None),
        "SSEKMSKeyId": options.sse_kms_key_id,
    }
    return {name: value for name, value in given.items() if value is not None}


def _sign_urls(signature_version: str, **_: Any) -> str | None:
    """Presigned URLs by Signature Version 4: botocore's default is the former one, which buckets since 2020 do not take."""
    return "s3v4-query" if signature_version in ("s3v4-query", "v4-query") else None


def _prepare(options: S3Options, params: dict[str, Any], context: dict[str, Any], model: Any, **_: Any) -> None:
    # No waiting for "100 Continue": the HTTP session would not wait anyway.
    params["headers"].pop("Expect", None)
    # botocore's redirector believes that it has redirected already, and lets the answer through.
    context.setdefault("s3_redirect", {})["redirected"] = True
    # One limit for the first byte and for those that follow: only objects are so long that these are the ones that matter.
    if model.name != "GetObject":
        context["read_timeout"] = THINKING.get(model.name, options.first_byte_s)
