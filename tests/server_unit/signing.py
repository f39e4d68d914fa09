"""Requests signed by somebody else: botocore's signers, with a fixed clock, made into what our server would receive.

Owns: `received`, and a signing function per kind of signature.
Must not know: how s3mount computes signatures.
"""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from types import SimpleNamespace
from unittest import mock

from botocore.auth import HmacV1Auth, HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from s3mount.server.wire import S3Request, parse_request

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
MOMENT = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC)
NOW = calendar.timegm(MOMENT.utctimetuple())
NO_HEADERS: Mapping[str, str] = {}


@contextmanager
def clock() -> Iterator[None]:
    """botocore's clock stands at NOW."""
    with (
        mock.patch("botocore.auth.get_current_datetime", return_value=MOMENT),
        mock.patch("botocore.auth.time", SimpleNamespace(time=lambda: NOW)),
        mock.patch("botocore.auth.formatdate", lambda usegmt: formatdate(NOW, usegmt=usegmt)),
    ):
        yield


def received(method: str, url: str, headers: Mapping[str, str], *, bases: tuple[str, ...] = ()) -> S3Request:
    """What arrives when a client sends *headers* to *url*."""
    rest = url.partition("://")[2]
    host, _, target = rest.partition("/")
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    if not any(name.lower() == b"host" for name, _ in raw):
        raw.append((b"Host", host.encode()))
    return parse_request(method, f"/{target}", raw, bases=bases)


def sign_header(method: str, url: str, headers: Mapping[str, str] = NO_HEADERS, body: bytes = b"", region: str = "us-east-1") -> S3Request:
    request = AWSRequest(method, url, headers=dict(headers), data=body)
    with clock():
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET), "s3", region).add_auth(request)
    return received(method, request.url or url, dict(request.headers.items()))


def sign_query(method: str, url: str, headers: Mapping[str, str] = NO_HEADERS, expires: int = 3600) -> S3Request:
    request = AWSRequest(method, url, headers=dict(headers))
    with clock():
        S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET), "s3", "us-east-1", expires=expires).add_auth(request)
    return received(method, request.url or url, dict(request.headers.items()))


def sign_v2_header(method: str, url: str, headers: Mapping[str, str] = NO_HEADERS, auth_path: str | None = None) -> S3Request:
    request = AWSRequest(method, url, headers=dict(headers), auth_path=auth_path)
    with clock():
        HmacV1Auth(Credentials(ACCESS_KEY, SECRET)).add_auth(request)
    return received(method, request.url or url, dict(request.headers.items()), bases=("s3.example.com",))


def sign_v2_query(method: str, url: str, headers: Mapping[str, str] = NO_HEADERS, expires: int = 3600) -> S3Request:
    """As boto3 presigns: headers go into the query, and are not sent."""
    request = AWSRequest(method, url, headers=dict(headers))
    with clock():
        HmacV1QueryAuth(Credentials(ACCESS_KEY, SECRET), expires=expires).add_auth(request)
    return received(method, request.url or url, {})
