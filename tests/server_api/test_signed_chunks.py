"""Bodies in signed chunks (STREAMING-AWS4-HMAC-SHA256-PAYLOAD), as older SDKs send them: signed here by botocore and by hand."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.server_api.serving import ACCESS_KEY, SECRET, Served

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow

SENTINEL = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
EMPTY = hashlib.sha256(b"").hexdigest()
DATA = bytes(range(256)) * 1000
CHUNK = 64 * 1024


class _Streaming(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    def payload(self, request: AWSRequest) -> str:
        return SENTINEL


def signing_key(date: str) -> bytes:
    key = f"AWS4{SECRET}".encode()
    for step in (date, "us-east-1", "s3", "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    return key


def signed(url: str, data: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of a PUT in signed chunks."""
    headers = {"x-amz-decoded-content-length": str(len(data)), "content-encoding": "aws-chunked", "x-amz-content-sha256": SENTINEL}
    request = AWSRequest("PUT", url, headers=headers)
    _Streaming(Credentials(ACCESS_KEY, SECRET), "s3", "us-east-1").add_auth(request)
    found = dict(request.headers.items())
    stamp = found["X-Amz-Date"]
    previous = found["Authorization"].rpartition("Signature=")[2]
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    key, body = signing_key(stamp[:8]), b""
    for chunk in (*(data[at : at + CHUNK] for at in range(0, len(data), CHUNK)), b""):
        digest = hashlib.sha256(chunk).hexdigest()
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{scope}\n{previous}\n{EMPTY}\n{digest}"
        previous = hmac.digest(key, text.encode(), "sha256").hex()
        body += b"%x;chunk-signature=%s\r\n%s\r\n" % (len(chunk), previous.encode(), chunk)
    return found, body


def put(served: Served, key: str, *, change: bool) -> tuple[int, bytes]:
    path = f"/chunks/{key}"
    headers, body = signed(f"{served.url}{path}", DATA)
    if change:
        at = len(body) // 2
        body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    status, _, answer = served.ask("PUT", path, body, **headers)
    return status, answer


@pytest.fixture(autouse=True, scope="module")
def chunks(served: Served) -> None:
    served.engine.create_bucket("chunks")


def test_signed_chunks_are_verified_and_undone(served: Served) -> None:
    assert put(served, "right", change=False)[0] == 200
    got = served.client().get_object(Bucket="chunks", Key="right")
    assert got["Body"].read() == DATA
    assert "ContentEncoding" not in got


def test_a_changed_chunk_stores_nothing(served: Served) -> None:
    status, answer = put(served, "changed", change=True)
    assert (status, b"<Code>SignatureDoesNotMatch</Code>" in answer) == (403, True)
    assert served.client().list_objects_v2(Bucket="chunks", Prefix="changed")["KeyCount"] == 0
