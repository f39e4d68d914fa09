"""Signatures: botocore's signer with the client's credentials, which refresh themselves.

Owns: which fields are signed, and what of a signature is kept from one request to the next.
Must not know: sockets, what is asked.

One signature costs 45 microseconds of CPU, 15 of them the signing key, which is the same for a day: it is kept per credentials. The
request itself is small: host, the fields of S3 and those that say what is asked; what only describes the client is sent unsigned.
What the signature says of a body is the caller's word: its SHA-256, or UNSIGNED.
Credentials are asked for each request (their refresh is their own affair), so that a mount outlives any session token.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Protocol

from botocore.auth import EMPTY_SHA256_HASH, S3SigV4Auth
from botocore.awsrequest import AWSRequest

from s3mount.store.s3.lean.origin import Origin, Scope

# The SHA-256 of no bytes, and the word for a body that is not hashed.
EMPTY: str = EMPTY_SHA256_HASH
UNSIGNED = "UNSIGNED-PAYLOAD"


class Credentials(Protocol):
    """aiobotocore's, plain or refreshable."""

    async def get_frozen_credentials(self) -> Any: ...


class Signer:
    """Signs requests to one *origin*; with *credentials* None or an origin without a scope it signs nothing."""

    def __init__(self, origin: Origin, credentials: Credentials | None) -> None:
        self._origin = origin
        self._credentials = credentials if origin.scope is not None else None
        self._keys: _Keys | None = None
        own = {name: value for name, value in origin.fields.items() if name.lower().startswith("x-amz-")}
        self._signed = {"Host": origin.authority, **own}
        self._unsigned = {name: value for name, value in origin.fields.items() if name not in own} | {"Accept-Encoding": "identity"}

    async def identity(self) -> object:
        """What tells the present credentials from those of before a refresh. Raises as the credentials' refresh does."""
        return None if self._credentials is None else await self._credentials.get_frozen_credentials()

    def sign(self, identity: Any, method: str, target: str, fields: Mapping[str, str], *, payload: str = EMPTY) -> list[tuple[str, str]]:
        """All fields of a request for *target* (path and query) with *fields*, signed as *identity*; *payload* is the word for its body."""
        if identity is None:
            return [*{**self._signed, **fields}.items(), *self._unsigned.items()]
        assert self._origin.scope is not None
        if self._keys is None or self._keys.credentials != identity:
            self._keys = _Keys(identity, self._origin.scope)
        url = f"{self._origin.scheme}://{self._origin.authority}{target}"
        request = AWSRequest(method, url, headers={**self._signed, **fields})
        request.context["payload"] = payload
        self._keys.add_auth(request)
        return [*request.headers.items(), *self._unsigned.items()]


class _Keys(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """botocore's signer for one set of credentials, with the day's signing key remembered."""

    def __init__(self, credentials: Any, scope: Scope) -> None:
        super().__init__(credentials, scope.service, scope.region)
        self._steps = (scope.region, scope.service, "aws4_request")
        self._day = ""
        self._key = b""

    def payload(self, request: Any) -> str:
        said: str = request.context["payload"]
        return said

    def signature(self, string_to_sign: str, request: Any) -> str:
        day = request.context["timestamp"][:8]
        if day != self._day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for step in (day, *self._steps):
                key = hmac.digest(key, step.encode(), "sha256")
            self._day, self._key = day, key
        return hmac.digest(self._key, string_to_sign.encode(), "sha256").hex()
