"""What goes wrong on the way to an S3 service, as StoreErrors with a sentence.

Owns: the meaning of botocore's and httpx's exceptions; whether a request that failed may have arrived.
Must not know: which request it was, beyond `Asked`.

F1  A mutation of which nothing was sent raises Unavailable; one that may have arrived raises OutcomeUnknown, or TimedOut where the answer
    did not come in time. A read raises Unavailable or TimedOut.
F2  What a user can change is AccessDenied or UsageError, at once: no credentials, no trust in the endpoint's certificate. A name
    that is not found and a port where nobody listens may be an outage: Unavailable.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import botocore.exceptions as boto
import httpx2
from botocore.parsers import ResponseParserError

from s3mount.errors import AccessDenied, InvalidName, OutcomeUnknown, S3MountError, TimedOut, Unavailable, UsageError
from s3mount.store.s3.answers import Asked, Refusal, error_of

# Failures that come before the first byte of the request leaves.
UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError, httpx2.UnsupportedProtocol)
# What botocore, its HTTP session and the body's stream raise.
FAILURES = (boto.BotoCoreError, boto.ClientError, ResponseParserError, httpx2.HTTPError, httpx2.StreamError, OSError)

# What the credential chain asks of others than the service.
CREDENTIAL_OPERATIONS = frozenset({"AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken", "CreateOAuth2Token"})

SSO_ERRORS = (boto.SSOError, boto.TokenRetrievalError, boto.SSOTokenLoadError, boto.UnauthorizedSSOTokenError)


def failure_of(error: BaseException, asked: Asked, *, endpoint: str = "") -> S3MountError:
    """The error for *error*, one of FAILURES. *endpoint*: where the service is, for the sentence."""
    if isinstance(error, boto.ClientError) and error.operation_name in CREDENTIAL_OPERATIONS:
        return _without_credentials(error)
    if isinstance(error, boto.ClientError):
        return error_of(refusal_of(error), asked, now_s=time.time())
    return _of_the_user(error) or _of_the_wire(error, asked, endpoint)


def refusal_of(error: boto.ClientError) -> Refusal:
    """What the service said."""
    said: dict[str, Any] = dict(error.response.get("Error", {}))
    meta = error.response.get("ResponseMetadata", {})
    headers = {name.lower(): value for name, value in meta.get("HTTPHeaders", {}).items()}
    code, message = str(said.pop("Code", "")), str(said.pop("Message", None) or "")
    status = int(meta.get("HTTPStatusCode", 0))
    fields = {name: value for name, value in said.items() if isinstance(value, str)}
    # botocore makes a code of the status where the answer has no body.
    return Refusal(status, "" if code == str(status) else code, message, fields, headers)


def _without_credentials(error: boto.ClientError) -> S3MountError:
    """Who gives the credentials refuses, or fails for now; the service itself was not asked."""
    refusal = refusal_of(error)
    kind = Unavailable if refusal.status >= 500 or refusal.status == 429 else AccessDenied
    return kind(f"The credentials could not be got ({error.operation_name}: {refusal.said}).")


# -- what the user can change -----------------------------------------------------------------


def _of_the_user(error: BaseException) -> S3MountError | None:
    if isinstance(error, boto.NoCredentialsError):
        return AccessDenied(
            "No credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a --profile,"
            " or use --no-sign-request for a public bucket."
        )
    if isinstance(error, boto.PartialCredentialsError):
        return AccessDenied(f"The credentials are not complete: {_text(error)}.")
    if isinstance(error, SSO_ERRORS):
        return AccessDenied(f"The single sign-on has run out: run `aws sso login` ({_text(error)}).")
    if isinstance(error, boto.CredentialRetrievalError):
        return AccessDenied(f"The credentials could not be got: {_text(error)}.")
    if isinstance(error, boto.ProfileNotFound):
        return UsageError(f"{_text(error)}: check --profile, AWS_PROFILE and ~/.aws/config.")
    if isinstance(error, boto.ParamValidationError) and "Invalid bucket name" in str(error):
        return InvalidName("That cannot be the name of a bucket: 3 to 63 of a-z, 0-9, - and dots.")
    if isinstance(error, boto.BotoCoreError) and not isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        return UsageError(f"The S3 client refuses: {_text(error)}.")
    return None


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


# -- what the wire does ------------------------------------------------------------------------


def _of_the_wire(error: BaseException, asked: Asked, endpoint: str) -> S3MountError:
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return AccessDenied(f"The certificate of {endpoint} is not trusted ({_tls(causes)}): name its authority with --ca-bundle FILE.")
    sentence = _sentence(error, causes, endpoint)
    if not asked.mutates or isinstance(error, boto.SSLError) or any(isinstance(cause, UNSENT) for cause in causes):
        late = any(isinstance(cause, httpx2.TimeoutException) for cause in causes)
        return (TimedOut if late and not asked.mutates else Unavailable)(sentence)
    if any(isinstance(cause, httpx2.ReadTimeout) for cause in causes):
        return TimedOut(sentence)
    return OutcomeUnknown(sentence)


def _sentence(error: BaseException, causes: list[BaseException], endpoint: str) -> str:
    if isinstance(error, boto.ProxyConnectionError):
        return f"The proxy on the way to {endpoint} cannot be reached: check HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"{endpoint} does not answer with TLS ({_tls(causes)}): is it an http:// endpoint?"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"The host of {endpoint} is not known: check --endpoint-url and the network."
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return f"Nothing listens at {endpoint}: check --endpoint-url, or start the server."
    if any(isinstance(cause, httpx2.ConnectTimeout) for cause in causes):
        return f"{endpoint} cannot be reached: no connection within the time allowed."
    if any(isinstance(cause, httpx2.TimeoutException) for cause in causes):
        return f"{endpoint} does not answer within the time allowed."
    if isinstance(error, ResponseParserError):
        return f"{endpoint} does not answer as an S3 service does: check --endpoint-url."
    return f"The connection to {endpoint} failed ({_text(causes[-1]) or type(causes[-1]).__name__})."


def _tls(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, ssl.SSLError):
            return (cause.reason or "no TLS").lower().replace("_", " ")
    return "TLS"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and all that led to it, once each."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__]
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions
