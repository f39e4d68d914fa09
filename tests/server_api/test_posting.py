"""Browser uploads: forms with policies that boto3 signs, sent as a browser sends them."""

from __future__ import annotations

import http.client
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.server_api.serving import Served

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow

DESCRIBED: dict[str, Any] = {"x-amz-meta-colour": "blue", "Content-Type": "image/png", "Cache-Control": "no-cache"}


def send(served: Served, bucket: str, fields: dict[str, str], file: bytes | None, filename: str = "cat.jpg") -> Any:
    """Status, headers (lower case) and body of a form's answer."""
    boundary = uuid.uuid4().hex
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    if file is not None:
        disposition = f'Content-Disposition: form-data; name="file"; filename="{filename}"'
        parts.append(f"--{boundary}\r\n{disposition}\r\nContent-Type: image/jpeg\r\n\r\n".encode() + file + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    try:
        connection.request("POST", f"/{bucket}", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def code(body: bytes) -> str:
    return body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


def form(client: Any, bucket: str, /, *, key: str = "up/a", conditions: Sequence[Any] = (), **fields: str) -> dict[str, str]:
    allowed = [*conditions, *({name: value} for name, value in fields.items())]
    made = client.generate_presigned_post(bucket, key, Fields=dict(fields), Conditions=allowed, ExpiresIn=60)
    found: dict[str, str] = made["fields"]
    return found


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_signed_form_stores_its_file_and_what_its_fields_say(served: Served, s3: Any, bucket: str, version: str) -> None:
    client = served.client(signature_version=version)
    fields = form(client, bucket, **DESCRIBED)
    status, headers, body = send(served, bucket, fields, b"miau")
    assert (status, body) == (204, b"")
    assert headers["location"].endswith(f"/{bucket}/up/a")
    got = s3.get_object(Bucket=bucket, Key="up/a")
    assert got["Body"].read() == b"miau"
    assert (got["Metadata"], got["ContentType"], got["CacheControl"], got["ETag"]) == (
        {"colour": "blue"},
        "image/png",
        "no-cache",
        headers["etag"],
    )


def test_a_form_chooses_its_answer(served: Served, s3: Any, bucket: str) -> None:
    status, headers, body = send(served, bucket, form(s3, bucket, success_action_status="201"), b"x")
    assert (status, headers["content-type"]) == (201, "application/xml")
    assert b"<PostResponse" in body
    assert f"<Bucket>{bucket}</Bucket><Key>up/a</Key><ETag>".encode() in body
    status, headers, _ = send(served, bucket, form(s3, bucket, success_action_redirect="http://www.example.com/done?a=b"), b"x")
    assert status == 303
    told = parse_qs(urlsplit(headers["location"]).query)
    assert (told["a"], told["bucket"], told["key"], told["etag"]) == (["b"], [bucket], ["up/a"], [headers["etag"]])


def test_the_files_name_may_be_the_keys_end(served: Served, s3: Any, bucket: str) -> None:
    fields = form(s3, bucket, key="up/${filename}")
    assert send(served, bucket, fields, b"x", filename="dog.jpg")[0] == 204
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Key"] == "up/dog.jpg"


def test_a_form_that_breaks_its_policy_stores_nothing(served: Served, s3: Any, bucket: str) -> None:
    short = form(s3, bucket, conditions=[["content-length-range", 10, 20]])
    long = form(s3, bucket, conditions=[["content-length-range", 0, 2]])
    elsewhere = {**form(s3, bucket), "key": "other"}
    more = {**form(s3, bucket), "x-amz-meta-extra": "not in the policy"}
    changed = {**form(s3, bucket), "x-amz-signature": "0" * 64}
    answers = [send(served, bucket, fields, b"four") for fields in (short, long, elsewhere, more, changed)]
    assert [(status, code(body)) for status, _, body in answers] == [
        (400, "EntityTooSmall"),
        (400, "EntityTooLarge"),
        (403, "AccessDenied"),
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
    ]
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_a_form_that_expired_or_was_never_signed_is_denied(served: Served, s3: Any, bucket: str) -> None:
    expired = s3.generate_presigned_post(bucket, "a", ExpiresIn=-10)["fields"]
    for fields in (expired, {"key": "a"}):
        status, _, body = send(served, bucket, fields, b"x")
        assert (status, code(body)) == (403, "AccessDenied")


def test_a_form_without_a_file_or_a_key_is_refused(served: Served, s3: Any, bucket: str) -> None:
    fields = form(s3, bucket)
    assert code(send(served, bucket, fields, None)[2]) == "InvalidArgument"
    fields.pop("key")
    assert code(send(served, bucket, fields, b"x")[2]) == "InvalidArgument"


def test_where_nobody_signs_a_plain_form_does(open_server: Served) -> None:
    open_server.engine.create_bucket("box")
    body = b"x" * 3_000_000
    assert send(open_server, "box", {"key": "a/${filename}", "Content-Type": "text/plain"}, body, filename="f")[0] == 204
    status, headers, got = open_server.ask("GET", "/box/a/f")
    assert (status, headers["content-type"], got) == (200, "text/plain", body)
