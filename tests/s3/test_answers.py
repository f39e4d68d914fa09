"""What a refusal means: status and code in, an error with one sentence out."""

from __future__ import annotations

import pytest

from s3mount import errors
from s3mount.store.s3.answers import Asked, Conflict, NoSuchRange, NotAllowed, Refusal, error_of, read_refusal

READ = Asked(bucket="bucket", key="a/key")
WRITE = Asked(bucket="bucket", key="a/key", mutates=True)
CREATE = Asked(bucket="bucket", key="a/key", mutates=True, absent=True)
LIST = Asked(bucket="bucket")

TABLE = [
    # request, status, code, error, words of the sentence
    (READ, 404, "NoSuchKey", errors.NotFound, "'a/key'"),
    (READ, 404, "", errors.NotFound, "'a/key'"),
    (LIST, 404, "", errors.NoSuchBucket, "'bucket'"),
    (READ, 404, "NoSuchBucket", errors.NoSuchBucket, "'bucket'"),
    (WRITE, 404, "NoSuchUpload", errors.NoSuchUpload, "over or never was"),
    (READ, 403, "AccessDenied", NotAllowed, "'a/key' in bucket 'bucket'"),
    (LIST, 403, "", NotAllowed, "the bucket 'bucket'"),
    (READ, 401, "Unauthorized", NotAllowed, "401 Unauthorized"),
    (READ, 403, "InvalidAccessKeyId", errors.AccessDenied, "does not know this access key"),
    (READ, 403, "SignatureDoesNotMatch", errors.AccessDenied, "secret key does not fit"),
    (READ, 400, "ExpiredToken", errors.AccessDenied, "have expired"),
    (READ, 403, "InvalidObjectState", errors.Archived, "restore"),
    (READ, 412, "PreconditionFailed", errors.PreconditionFailed, "another version"),
    (WRITE, 412, "", errors.PreconditionFailed, "another version"),
    (CREATE, 412, "PreconditionFailed", errors.AlreadyExists, "exists already"),
    (WRITE, 409, "ConditionalRequestConflict", Conflict, "writing 'a/key'"),
    (WRITE, 409, "OperationAborted", Conflict, "at this moment"),
    (WRITE, 409, "BucketNotEmpty", errors.BucketNotEmpty, "not empty"),
    (WRITE, 409, "BucketAlreadyOwnedByYou", errors.BucketExists, "exists already"),
    (WRITE, 400, "InvalidPart", errors.InvalidPart, "'a/key'"),
    (WRITE, 400, "EntityTooLarge", errors.TooLarge, "larger"),
    (WRITE, 400, "MetadataTooLarge", errors.TooLarge, "2 KB"),
    (WRITE, 400, "KeyTooLongError", errors.InvalidName, "1024 bytes"),
    (WRITE, 400, "RequestTimeout", errors.Unavailable, "did not take"),
    (WRITE, 400, "BadDigest", errors.Unavailable, "did not arrive"),
    (READ, 416, "InvalidRange", NoSuchRange, "outside"),
    (READ, 503, "SlowDown", errors.Throttled, "slow down"),
    (WRITE, 503, "", errors.Throttled, "slow down"),
    (READ, 429, "", errors.Throttled, "slow down"),
    (READ, 500, "InternalError", errors.Unavailable, "fails"),
    (WRITE, 500, "InternalError", errors.OutcomeUnknown, "failed while"),
    (WRITE, 502, "", errors.OutcomeUnknown, "502"),
    (WRITE, 504, "", errors.OutcomeUnknown, "504"),
    (READ, 502, "", errors.Unavailable, "502"),
    (WRITE, 507, "", errors.NoSpace, "full"),
    (WRITE, 501, "NotImplemented", errors.Unsupported, "cannot do that"),
    (WRITE, 400, "SomethingNew", errors.StoreError, "400 SomethingNew: words"),
]


@pytest.mark.parametrize(("asked", "status", "code", "kind", "words"), TABLE)
def test_a_refusal_is_one_error_with_one_sentence(asked: Asked, status: int, code: str, kind: type[errors.StoreError], words: str) -> None:
    error = error_of(Refusal(status, code, "words"), asked)
    assert type(error) is kind
    assert words in str(error)
    assert "\n" not in str(error)


def test_every_refusal_has_an_errno() -> None:
    for _, status, code, kind, _ in TABLE:
        if kind not in (errors.StoreError, NoSuchRange):
            assert errors.errno_of(error_of(Refusal(status, code), READ)), code


@pytest.mark.parametrize(
    ("refusal", "region"),
    [
        (Refusal(301, "PermanentRedirect", headers={"x-amz-bucket-region": "eu-west-1"}), "eu-west-1"),
        (Refusal(301, "", headers={"x-amz-bucket-region": "eu-west-1"}), "eu-west-1"),
        (Refusal(400, "AuthorizationHeaderMalformed", "wrong", {"Region": "ap-south-1"}), "ap-south-1"),
        (Refusal(400, "IllegalLocationConstraintException", "the region; expecting 'us-west-2'"), "us-west-2"),
        (Refusal(301, "PermanentRedirect"), ""),
    ],
)
def test_a_bucket_elsewhere_is_said_to_be_there(refusal: Refusal, region: str) -> None:
    error = error_of(refusal, LIST)
    assert isinstance(error, errors.Misdirected)
    assert error.region == region
    assert "--region" in str(error)
    assert region in str(error)


def test_a_malformed_authorization_of_another_kind_is_no_redirect() -> None:
    assert type(error_of(Refusal(400, "AuthorizationHeaderMalformed", "no credential"), LIST)) is errors.StoreError


@pytest.mark.parametrize(
    ("fields", "headers", "words"),
    [
        ({"ServerTime": "2026-11-21T02:00:00Z"}, {}, "by 60 minutes (ahead)"),
        ({}, {"date": "Sat, 21 Nov 2026 06:00:00 GMT"}, "by 3 hours (behind)"),
        ({}, {"date": "Wed, 25 Nov 2026 03:00:00 GMT"}, "by 4 days (behind)"),
        ({}, {"date": "nonsense"}, "differs from the store's:"),
    ],
)
def test_a_wrong_clock_is_said_with_how_much(fields: dict[str, str], headers: dict[str, str], words: str) -> None:
    now = 1795230000.0  # 2026-11-21T03:00:00Z
    error = error_of(Refusal(403, "RequestTimeTooSkewed", "", fields, headers), LIST, now_s=now)
    assert isinstance(error, errors.AccessDenied)
    assert words in str(error)


def test_an_error_document_is_read_with_or_without_a_namespace() -> None:
    for opening in (b"<Error>", b'<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'):
        body = b'<?xml version="1.0"?>' + opening + b"<Code>NoSuchKey</Code><Message>M</Message><Region>r</Region></Error>"
        refusal = read_refusal(404, {"date": "now"}, body)
        assert (refusal.status, refusal.code, refusal.message, refusal.region) == (404, "NoSuchKey", "M", "r")


@pytest.mark.parametrize(
    "body", [b"", b"<html>sorry</html>", b"not XML <", b"<Error><Code>", b"<!DOCTYPE x><Error/>", b"<Error/>" + b" " * 70_000]
)
def test_what_is_no_error_document_leaves_the_status_to_speak(body: bytes) -> None:
    assert type(error_of(read_refusal(503, {}, body), READ)) is errors.Throttled
