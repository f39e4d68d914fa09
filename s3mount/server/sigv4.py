"""Signature Version 4: what a request claims, what it should have been signed with, and presigned URLs.

Owns: canonical request, string to sign, `Claim`, verification, `SignatureChain` for signed chunks, `presign`.
Must not know: which keys exist, the clock (callers pass *now*, seconds since 1970), how bodies are read.

    parse_claim(request) -> Claim | None      who says to have signed, over what, when; nothing is believed yet
    verify(request, claim, secret, now=...)   raises, or returns the `SignatureChain` that a signed chunked body continues

Rules chosen
1. The canonical request is made of what arrived: raw path (S3 neither normalises nor encodes it again), query parameters decoded and
   encoded again, every header that SignedHeaders names, whatever it is. A signed header that did not come counts as empty.
2. The payload hash is the text of x-amz-content-sha256, sentinel or not; UNSIGNED-PAYLOAD in query authentication.
3. Any region is right: the scope's own is used. The service must be s3.
4. An x-amz-* header that came but was not signed is refused, as at AWS; x-amz-content-sha256 alone is exempt (it signs itself).
5. X-Amz-Expires outside 1 to 604800 is AccessDenied (403): AWS answers 400 for some of these, the suites of others demand 403.
6. Text that is no ASCII may be signed as the bytes sent or, by clients that send Latin-1, as its UTF-8 form: both are tried.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from s3mount.server.s3errors import S3Error
from s3mount.server.wire import S3Request, parse_http_date, query_pairs, split_target

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
# AWS's limits, seconds.
SKEW = 15 * 60
EXPIRES = 7 * 24 * 3600

_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII)
_BLANKS = re.compile(r"[ \t]+")
_SENTINELS = frozenset(
    {
        UNSIGNED,
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER",
    }
)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Claim:
    """Who says to have signed a request, and how. `stamp` is as it was signed, `time` the same in seconds since 1970."""

    access_key: str
    date: str
    region: str
    signed_headers: tuple[str, ...]
    signature: str
    stamp: str
    time: int
    payload: str
    expires: int | None = None
    in_query: bool = False

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/s3/aws4_request"


# -- what a request claims -----------------------------------------------------------------


def parse_claim(request: S3Request) -> Claim | None:
    """None where neither header nor query says AWS4. Raises S3Error where they do and make no sense."""
    header = request.header("authorization")
    if header is not None and header.startswith("AWS4-"):
        return _header_claim(request, header)
    if request.param("X-Amz-Algorithm") is not None or request.param("X-Amz-Credential") is not None:
        return _query_claim(request)
    return None


def _header_claim(request: S3Request, header: str) -> Claim:
    algorithm, _, rest = header.partition(" ")
    if algorithm != ALGORITHM:
        raise S3Error("InvalidRequest", f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.")
    given = {name: value for name, _, value in (part.strip().partition("=") for part in rest.split(","))}
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not given.get(name):
            raise _malformed(f"missing {name}.")
    access_key, date, region = _credential(given["Credential"], _malformed)
    stamp, when = _date_of(request)
    if stamp_of(when)[:8] != date:
        raise _malformed(f'Invalid credential date "{date}". This date is not the same as X-Amz-Date: "{stamp[:8]}".')
    signed = tuple(given["SignedHeaders"].lower().split(";"))
    return Claim(access_key, date, region, signed, given["Signature"], stamp, when, _payload(request))


def _query_claim(request: S3Request) -> Claim:
    given = {}
    for name in ("Algorithm", "Credential", "Signature", "Date", "SignedHeaders", "Expires"):
        value = request.param(f"X-Amz-{name}")
        if not value:
            raise _bad_query(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, "
                "X-Amz-SignedHeaders, and X-Amz-Expires parameters."
            )
        given[name] = value
    if given["Algorithm"] != ALGORITHM:
        raise _bad_query(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    access_key, date, region = parse_credential(given["Credential"])
    stamp = given["Date"]
    when = _iso_time(stamp)
    if when is None:
        raise _bad_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    if stamp[:8] != date:
        raise _bad_query(f'Invalid credential date "{date}". This date is not the same as X-Amz-Date: "{stamp[:8]}".')
    signed = tuple(given["SignedHeaders"].lower().split(";"))
    return Claim(access_key, date, region, signed, given["Signature"], stamp, when, UNSIGNED, _expires(given["Expires"]), True)


def _credential(text: str, refusal: Callable[[str], S3Error]) -> tuple[str, str, str]:
    """Access key, date and region of a scope."""
    parts = text.rsplit("/", 4)
    if len(parts) != 5 or not all(parts[:3]):
        raise refusal('the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".')
    access_key, date, region, service, terminal = parts
    if service != "s3":
        raise refusal(f'incorrect service "{service}". This endpoint belongs to "s3".')
    if terminal != "aws4_request":
        raise refusal(f'incorrect terminal "{terminal}". This endpoint uses "aws4_request".')
    return access_key, date, region


def parse_credential(text: str) -> tuple[str, str, str]:
    """Access key, date and region of a scope in a form or query. Raises AuthorizationQueryParametersError."""
    return _credential(text, _bad_credential)


def _malformed(message: str) -> S3Error:
    return S3Error("AuthorizationHeaderMalformed", f"The authorization header is malformed; {message}")


def _bad_query(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)


def _bad_credential(message: str) -> S3Error:
    return _bad_query(f"Error parsing the X-Amz-Credential parameter; {message}")


def _expires(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", text):
        raise _bad_query("X-Amz-Expires should be a number")
    seconds = int(text)
    if seconds < 0:
        raise S3Error("AccessDenied", "X-Amz-Expires must be non-negative")
    if seconds > EXPIRES:
        raise S3Error("AccessDenied", f"X-Amz-Expires must be less than a week (in seconds), that is {EXPIRES}")
    return seconds


def _date_of(request: S3Request) -> tuple[str, int]:
    """The ISO stamp that was signed, and its seconds. Raises AccessDenied where no date can be read."""
    text = request.header("x-amz-date") or request.header("date") or ""
    when = request_time(text)
    if when is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    return (text if _STAMP.fullmatch(text) else stamp_of(when)), when


def request_time(text: str) -> int | None:
    """Seconds since 1970 of an ISO basic or an RFC 9110 date; None where it is neither, or before 1970."""
    when = _iso_time(text)
    when = parse_http_date(text) if when is None else when
    return when if when is not None and when >= 0 else None


def _iso_time(text: str) -> int | None:
    found = _STAMP.fullmatch(text)
    try:
        return int(datetime(*map(int, found.groups()), tzinfo=UTC).timestamp()) if found else None  # type: ignore[arg-type,misc]
    except ValueError:
        return None


def stamp_of(when: float) -> str:
    """As signatures write a moment."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y%m%dT%H%M%SZ")


def _payload(request: S3Request) -> str:
    text = request.header("x-amz-content-sha256")
    if text is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    if text not in _SENTINELS and not _SHA256.fullmatch(text):
        raise S3Error(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
            ArgumentName="x-amz-content-sha256",
            ArgumentValue=text[:128],
        )
    return text


# -- verification --------------------------------------------------------------------------


def verify(request: S3Request, claim: Claim, secret: str, *, now: float, hosts: Sequence[str] = ()) -> SignatureChain:
    """Raises RequestTimeTooSkewed, AccessDenied (expired, unsigned headers), SignatureDoesNotMatch.

    *hosts* are further names under which the client may know this server (a proxy's): each may have been signed as the Host header.
    """
    _require_time(claim, now)
    _require_signed(request, claim)
    key = signing_key(secret, claim.date, claim.region)
    for canonical in _candidates(request, claim, hosts):
        if hmac.compare_digest(sign(key, string_to_sign(claim.stamp, claim.scope, canonical)), claim.signature.lower()):
            return SignatureChain(key, claim.stamp, claim.scope, claim.signature.lower())
    canonical = canonical_request(request, claim)
    raise S3Error(
        "SignatureDoesNotMatch",
        AWSAccessKeyId=claim.access_key,
        StringToSign=string_to_sign(claim.stamp, claim.scope, canonical),
        SignatureProvided=claim.signature[:128],
        CanonicalRequest=canonical.encode("utf-8", "surrogateescape").decode(errors="replace"),
    )


def _require_time(claim: Claim, now: float) -> None:
    if claim.expires is None:
        require_recent(claim.time, now, claim.stamp)
        return
    if claim.time > now + SKEW:
        raise S3Error("AccessDenied", "Request is not valid yet", **{"X-Amz-Date": claim.stamp, "ServerTime": iso_time(now)})
    if claim.time + claim.expires <= now:
        at = {"X-Amz-Expires": claim.expires, "Expires": iso_time(claim.time + claim.expires), "ServerTime": iso_time(now)}
        raise S3Error("AccessDenied", "Request has expired", **at)


def require_recent(when: float, now: float, said: str) -> None:
    """Raises RequestTimeTooSkewed where *when* is more than SKEW away from *now*; *said* is how the request put it."""
    if abs(now - when) > SKEW:
        raise S3Error("RequestTimeTooSkewed", RequestTime=said, ServerTime=iso_time(now), MaxAllowedSkewMilliseconds=SKEW * 1000)


def iso_time(when: float) -> str:
    """As documents write a moment, in whole seconds."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _require_signed(request: S3Request, claim: Claim) -> None:
    signed = frozenset(claim.signed_headers)
    if "host" not in signed:
        raise S3Error("AccessDenied", "The host header must be signed.", HeadersNotSigned="host")
    came = {name for name, _ in request.headers if name.startswith("x-amz-")} - {"x-amz-content-sha256"}
    if not came <= signed:
        left_out = ", ".join(sorted(came - signed))
        raise S3Error("AccessDenied", "There were headers present in the request which were not signed", HeadersNotSigned=left_out)


def _candidates(request: S3Request, claim: Claim, hosts: Sequence[str]) -> Iterator[str]:
    """The canonical requests that may have been signed, most likely first."""
    yield canonical_request(request, claim)
    for host in hosts:
        yield canonical_request(request, claim, host=host)
    sent = request.header("x-amz-content-sha256")
    if claim.in_query and sent and "x-amz-content-sha256" in claim.signed_headers:
        yield canonical_request(request, claim, payload=sent)
    if any("\udc80" <= char <= "\udcff" for name in claim.signed_headers for value in request.values(name) for char in value):
        yield canonical_request(request, claim, latin=True)


def canonical_request(request: S3Request, claim: Claim, *, host: str = "", payload: str = "", latin: bool = False) -> str:
    """*host* takes the place of the Host header, *payload* that of the claim's hash; *latin*: headers came as Latin-1, signed as UTF-8."""
    values: dict[str, list[str]] = {name: [] for name in claim.signed_headers}
    for name, value in request.headers:
        if name in values:
            values[name].append(_BLANKS.sub(" ", _as_latin(value) if latin else value))
    if host:
        values["host"] = [host]
    return "\n".join(
        (
            request.method,
            request.path,
            canonical_query(request.query),
            *(f"{name}:{','.join(values[name])}" for name in claim.signed_headers),
            "",
            ";".join(claim.signed_headers),
            payload or claim.payload,
        )
    )


def _as_latin(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("latin-1")


def canonical_query(query: str) -> str:
    """Sorted by encoded name, then value; a bare name gets its `=`; the signature itself is left out."""
    pairs = [(uri_encode(name), uri_encode(value)) for name, value in query_pairs(query) if name != "X-Amz-Signature"]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def uri_encode(text: str) -> str:
    """Everything but A-Z a-z 0-9 - . _ ~, in upper-case hex."""
    return text if text.isalnum() and text.isascii() else quote(text, safe="-._~")


def string_to_sign(stamp: str, scope: str, canonical: str) -> str:
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}"


# A key pair has one key per day and region; a thousand of 32 bytes are nothing.
@functools.lru_cache(maxsize=1024)
def signing_key(secret: str, date: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for step in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key


def sign(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256").hex()


class SignatureChain:
    """The signatures of a signed chunked body: each covers its chunk and the signature before it; the request's is the first."""

    def __init__(self, key: bytes, stamp: str, scope: str, seed: str) -> None:
        self._key = key
        self._middle = f"{stamp}\n{scope}\n"
        self._previous = seed

    def next(self, chunk_sha256: str) -> str:
        """The signature that the next chunk, with this hash (hex), must have."""
        return self._advance(f"{ALGORITHM}-PAYLOAD\n{self._middle}{self._previous}\n{EMPTY_SHA256}\n{chunk_sha256}")

    def trailer(self, trailers: Iterable[tuple[str, str]]) -> str:
        """The signature that the trailer must have; names in lower case, in the order in which they came."""
        text = "".join(f"{name}:{value}\n" for name, value in trailers)
        return self._advance(f"{ALGORITHM}-TRAILER\n{self._middle}{self._previous}\n{hashlib.sha256(text.encode()).hexdigest()}")

    def _advance(self, text: str) -> str:
        self._previous = sign(self._key, text)
        return self._previous


# -- presigning ----------------------------------------------------------------------------

NO_HEADERS: Mapping[str, str] = {}


def presign(
    url: str,
    *,
    access_key: str,
    secret: str,
    now: float,
    method: str = "GET",
    region: str = "us-east-1",
    expires: int = 3600,
    headers: Mapping[str, str] = NO_HEADERS,
) -> str:
    """*url* (its path encoded as it will be sent) with a signature that holds for *expires* seconds from *now*.

    *headers* must come with the request as given here. Raises ValueError when *expires* is not 1 to EXPIRES.
    """
    if not 1 <= expires <= EXPIRES:
        raise ValueError(f"a presigned URL holds for 1 to {EXPIRES} seconds, not {expires}")
    parts = urlsplit(url)
    signed = {name.lower(): value for name, value in headers.items()} | {"host": parts.netloc.rpartition("@")[2]}
    names = tuple(sorted(signed))
    claim = Claim(access_key, stamp_of(now)[:8], region, names, "", stamp_of(now), int(now), UNSIGNED, expires, in_query=True)
    given = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{access_key}/{claim.scope}",
        "X-Amz-Date": claim.stamp,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": ";".join(names),
    }
    query = "&".join(filter(None, [parts.query, *(f"{name}={uri_encode(value)}" for name, value in given.items())]))
    path = split_target(parts.path)[1]
    request = S3Request(method, path, query, tuple(signed.items()), signed["host"], "", "")
    key = signing_key(secret, claim.date, region)
    signature = sign(key, string_to_sign(claim.stamp, claim.scope, canonical_request(request, claim)))
    return f"{parts.scheme}://{parts.netloc}{path}?{query}&X-Amz-Signature={signature}"
