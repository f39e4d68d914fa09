"""Where and as whom the bucket is asked: learnt from one request that botocore built.

Owns: the probe, and what is read off it: scheme, host, paths, region, the fields that every request carries.
Must not know: sockets, what is asked later.

AWS's rules of addressing (regions, partitions, dual-stack, virtual hosts, access points, dots in a bucket's name) live in botocore and
change there. So nothing is guessed here: the client builds and signs a GetObject of a key that nobody has, a handler takes the finished
request away before it leaves the process, and its URL and Authorization say all.

`Unfit` names what the lane leaves to the client: proxies, signatures of another kind (SigV4A, S3 Express sessions, SigV2).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from botocore.utils import get_environ_proxies

# Of each request anew, or the lane's own choice.
_OWN = frozenset({"authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "x-amz-checksum-mode", "host", "date"})
_OWN_TOO = frozenset({"amz-sdk-invocation-id", "amz-sdk-request", "accept-encoding", "connection", "content-length"})
_SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=[^,]+/\d{8}/([^/,]+)/([^/,]+)/aws4_request, ?SignedHeaders=")

# A key's characters that stand for themselves in a path, as botocore has them.
KEY_SAFE = "/-._~"


class Unfit(Exception):
    """The lane cannot do that: ask through the client. `permanent`: it never will, with this client."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature is valid for."""

    region: str
    service: str


@dataclass(frozen=True, slots=True)
class Origin:
    """How the bucket is asked. `fields` go with every request, `scope` is None where nothing is signed."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    authority: str
    base: str
    """The path before a key, with its "/" at the end."""
    fields: Mapping[str, str]
    scope: Scope | None

    @property
    def bucket_path(self) -> str:
        """The path of the bucket itself, for LIST."""
        return self.base[:-1] or "/"

    def key_target(self, key: str, version_id: str | None = None, *, query: Mapping[str, str] | None = None) -> str:
        """Path and query of an object, or of one version of it."""
        asked = {**(query or {}), **({} if version_id is None else {"versionId": version_id})}
        return self.base + quote(key, safe=KEY_SAFE) + ("?" + _query(asked) if asked else "")

    def bucket_target(self, query: Mapping[str, str]) -> str:
        """Path and query of the bucket, for LIST."""
        return self.bucket_path + "?" + _query(query)


def _query(parameters: Mapping[str, str]) -> str:
    """In the order that signatures are made in."""
    return "&".join(f"{name}={quote(value, safe='-._~')}" for name, value in sorted(parameters.items()))


class _Taken(Exception):
    """The probe's request, on its way out."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


async def learn(client: Any, bucket: str, extras: Mapping[str, str]) -> Origin:
    """The origin of *bucket* as *client* (aiobotocore) would ask it now; *extras* are the parameters of each of its calls.

    Raises Unfit, and what the client raises before it sends: no credentials, a bucket name that cannot be.
    """
    token = f"probe-{secrets.token_hex(16)}"

    def take(request: Any, **_: object) -> None:
        if token in request.url:
            raise _Taken(request)

    events, handler_id = client.meta.events, f"lean-{token}"
    events.register_first("before-send.s3.GetObject", take, unique_id=handler_id)
    try:
        await client.get_object(Bucket=bucket, Key=token, **extras)
    except _Taken as taken:
        return read_probe(taken.request.url, taken.request.headers, token, client.meta.config.proxies)
    finally:
        events.unregister("before-send.s3.GetObject", unique_id=handler_id)
    raise Unfit("The client answered the probe itself.", permanent=True)


def read_probe(url: str, headers: Mapping[str, str], token: str, proxies: Mapping[str, str] | None) -> Origin:
    """What the finished request for the key *token* tells. Raises Unfit."""
    parts = urlsplit(url)
    base, found, rest = parts.path.partition(token)
    if parts.scheme not in ("http", "https") or not parts.hostname or not found or rest or not base.endswith("/"):
        raise Unfit(f"The request goes to {url!r}, which the lane cannot read.", permanent=True)
    if _proxied(url, parts.scheme, proxies):
        raise Unfit("A proxy is configured.", permanent=True)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    shown = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = shown if port == (443 if secure else 80) else f"{shown}:{port}"
    fields = {name: _text(value) for name, value in headers.items() if name.lower() not in _OWN | _OWN_TOO}
    lower = {name.lower(): _text(value) for name, value in headers.items()}
    scope = _scope(lower)
    return Origin("https" if secure else "http", parts.hostname, port, authority, base, fields, scope)


def _scope(headers: Mapping[str, str]) -> Scope | None:
    signature = headers.get("authorization")
    if "x-amz-s3session-token" in headers:
        raise Unfit("The bucket is asked with S3 Express sessions.", permanent=True)
    if signature is None:
        return None
    found = _SIGNED.match(signature)
    if found is None:
        raise Unfit("The client signs in another way than SigV4.", permanent=True)
    return Scope(*found.groups())


def _proxied(url: str, scheme: str, proxies: Mapping[str, str] | None) -> bool:
    """Whether the client asks *url* through a proxy: the one it was given, else the environment's."""
    if proxies is not None:
        return bool(proxies.get(scheme))
    return bool(get_environ_proxies(url).get(scheme))


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
