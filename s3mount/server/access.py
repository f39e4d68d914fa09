"""Who asks, and whether they may: key pairs, their rights, authentication of a request.

Owns: `KeyPair`, `Rights`, `Keyring`, `Caller`; the order of checks of a request.
Must not know: where keys are configured, the clock (callers pass *now*, seconds since 1970), HTTP.

A secret is compared only through signatures, in constant time, and has no place in a repr.

Rights
    ALL         everything
    READ_ONLY   requests that change nothing, in every bucket
    a bucket    everything in this one bucket; ListBuckets shows it alone
Both can be combined: read-only in one bucket.

Order, as at AWS: is the request signed at all (AccessDenied) -> is the claim well-formed -> is the key known (InvalidAccessKeyId) -> is
it in time -> is the signature right -> may the key do this (AccessDenied).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from s3mount.server import sigv2, sigv4
from s3mount.server.s3errors import S3Error
from s3mount.server.wire import S3Request


class Action(enum.Enum):
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Rights:
    """`bucket` "" means every bucket."""

    write: bool = True
    bucket: str = ""

    def allow(self, action: Action, bucket: str) -> bool:
        """*bucket* "" is the service: listing buckets, which shows what one may see."""
        return (self.write or action is Action.READ) and (not self.bucket or bucket in ("", self.bucket))

    def show(self, bucket: str) -> bool:
        """Whether ListBuckets names *bucket*."""
        return not self.bucket or bucket == self.bucket


ALL = Rights()
READ_ONLY = Rights(write=False)


@dataclass(frozen=True, slots=True)
class KeyPair:
    access_key: str
    secret: str = field(repr=False)
    rights: Rights = ALL


class Keyring:
    """The key pairs that a server knows. Immutable: a change of keys is another Keyring."""

    def __init__(self, pairs: Iterable[KeyPair]) -> None:
        self._pairs: Mapping[str, KeyPair] = {pair.access_key: pair for pair in pairs}

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"<Keyring of {len(self)}>"

    def find(self, access_key: str) -> KeyPair:
        """Raises InvalidAccessKeyId."""
        pair = self._pairs.get(access_key)
        if pair is None:
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key[:128])
        return pair


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `chain` continues a signed chunked body; `signed` tells whether the request carries a signature at all."""

    access_key: str = ""
    rights: Rights = ALL
    signed: bool = False
    chain: sigv4.SignatureChain | None = None

    def require(self, action: Action, bucket: str) -> None:
        """Raises AccessDenied."""
        if not self.rights.allow(action, bucket):
            raise S3Error("AccessDenied")


def authenticate(request: S3Request, keys: Keyring, *, now: float, hosts: Sequence[str] = ()) -> Caller:
    """The caller whose signature this is. Raises S3Error for whatever is not right with it; AccessDenied for no signature.

    *hosts*: further names of this server, a proxy's, that may have been signed.
    """
    _require_one_mechanism(request)
    claim = sigv4.parse_claim(request)
    if claim is not None:
        pair = keys.find(claim.access_key)
        chain = sigv4.verify(request, claim, pair.secret, now=now, hosts=hosts)
        return Caller(pair.access_key, pair.rights, signed=True, chain=chain)
    older = sigv2.parse_claim(request)
    if older is not None:
        pair = keys.find(older.access_key)
        sigv2.verify(request, older, pair.secret, now=now)
        return Caller(pair.access_key, pair.rights, signed=True)
    raise _unsigned(request)


def _require_one_mechanism(request: S3Request) -> None:
    ways = (request.header("authorization"), request.param("X-Amz-Algorithm"), request.param("Signature"))
    if sum(bool(way) for way in ways) > 1:
        sentence = (
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the "
            "Authorization header should be specified"
        )
        raise S3Error("InvalidArgument", sentence, ArgumentName="Authorization", ArgumentValue=(ways[0] or "").split(" ")[0][:64])


def _unsigned(request: S3Request) -> S3Error:
    header = request.header("authorization")
    if not header:
        return S3Error("AccessDenied")
    return S3Error(
        "InvalidArgument", "Unsupported Authorization Type", ArgumentName="Authorization", ArgumentValue=header.split(" ")[0][:64]
    )


def unverified(request: S3Request) -> Caller:
    """The caller where authentication is off: may do everything; named, for the log, by what it says of itself."""
    header = request.header("authorization") or ""
    credential = header.partition("Credential=")[2] or request.param("X-Amz-Credential") or ""
    older = header[4:].partition(":")[0] if header.startswith("AWS ") else request.param("AWSAccessKeyId") or ""
    name = credential.partition("/")[0] or older
    return Caller(name[:128] if name.isprintable() else "", ALL, signed=bool(name))


# Methods that change nothing; a POST that only reads (?select) is not among what this server does.
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


def action_of(request: S3Request) -> Action:
    return Action.READ if request.method in _READS else Action.WRITE
