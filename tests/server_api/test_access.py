"""Who may do what: rights of key pairs, signed bodies, anonymous clients."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import botocore
import pytest
from botocore.exceptions import ClientError

from s3mount.server.access import KeyPair, Keyring, Rights
from s3mount.server.sigv4 import presign
from tests.server_api.serving import ACCESS_KEY, SECRET, Served
from tests.server_api.test_objects import code_of

# A real server, real sockets: for `make test`.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pairs = [
        KeyPair(ACCESS_KEY, SECRET),
        KeyPair("READER", "reader-secret", Rights(write=False)),
        KeyPair("ONE", "one-secret", Rights(bucket="mine")),
    ]
    server = Served(tmp_path_factory.mktemp("data"), Keyring(pairs))
    for name in ("mine", "yours"):
        server.engine.create_bucket(name)
    yield server
    server.stop()


def denied(ask: Any) -> bool:
    with pytest.raises(ClientError) as error:
        ask()
    return code_of(error) == ("AccessDenied", 403)


def test_a_reader_reads_and_changes_nothing(served: Served, s3: Any) -> None:
    s3.put_object(Bucket="yours", Key="a", Body=b"x")
    reader = served.client(access_key="READER", secret="reader-secret")
    assert reader.get_object(Bucket="yours", Key="a")["Body"].read() == b"x"
    assert denied(lambda: reader.put_object(Bucket="yours", Key="a", Body=b"y"))
    assert denied(lambda: reader.delete_objects(Bucket="yours", Delete={"Objects": [{"Key": "a"}]}))


def test_a_key_for_one_bucket_sees_no_other(served: Served, s3: Any) -> None:
    one = served.client(access_key="ONE", secret="one-secret")
    assert [each["Name"] for each in one.list_buckets()["Buckets"]] == ["mine"]
    one.put_object(Bucket="mine", Key="a", Body=b"x")
    s3.put_object(Bucket="yours", Key="b", Body=b"x")
    assert denied(lambda: one.get_object(Bucket="yours", Key="b"))
    assert denied(lambda: one.copy_object(Bucket="mine", Key="b", CopySource={"Bucket": "yours", "Key": "b"}))


def test_an_unsigned_request_is_denied_unless_authentication_is_off(served: Served, open_server: Served) -> None:
    unsigned = {"signature_version": botocore.UNSIGNED}
    assert denied(lambda: served.client(**unsigned).list_objects_v2(Bucket="yours"))
    client = open_server.client(**unsigned)
    client.create_bucket(Bucket="free")
    client.put_object(Bucket="free", Key="a", Body=b"x")
    assert client.get_object(Bucket="free", Key="a")["Body"].read() == b"x"


def test_a_changed_body_does_not_match_its_signature(served: Served) -> None:
    client = served.client()

    def change(request: Any, **_: Any) -> None:
        request.body = b"other"

    client.meta.events.register("before-send.s3.PutObject", change)
    with pytest.raises(ClientError) as error:
        client.put_object(Bucket="mine", Key="changed", Body=b"right")
    assert code_of(error)[0] in ("XAmzContentSHA256Mismatch", "BadDigest")


def test_an_expired_url_is_denied(served: Served) -> None:
    url = presign(f"{served.url}/mine/a", access_key=ACCESS_KEY, secret=SECRET, now=time.time() - 100, expires=50)
    with pytest.raises(urllib.error.HTTPError, match="403") as error:
        urllib.request.urlopen(url)
    error.value.close()
