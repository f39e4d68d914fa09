"""XML: what is written can be read, what is hostile is refused early, each document has its limits."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.server import xml
from s3mount.server.checksums import Algorithm
from s3mount.server.cors import CorsRule
from s3mount.server.s3errors import S3Error
from s3mount.server.tags import BUCKET_TAGS
from s3mount.server.xml import Doomed, NamedPart

LEGAL = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))


def refused(call: object, *args: object) -> str:
    with pytest.raises(S3Error) as caught:
        call(*args)  # type: ignore[operator]
    return caught.value.code


# -- writing -------------------------------------------------------------------------------


@given(LEGAL)
def test_text_survives_writing_and_reading(text: str) -> None:
    body = xml.document("Tagging", [xml.tag("Key", text + "\t\n\r")])
    assert ET.fromstring(body)[0].text == text + "\t\n\r"
    assert xml.parse(body, "Tagging").value("Key") == text + "\t\n\r"


@pytest.mark.parametrize(
    ("text", "written"),
    [("a&b", "a&amp;b"), ("<>\"'", "&lt;&gt;&quot;'"), ("\r", "&#xd;"), ("\x00\x01", "&#x0;&#x1;"), ("\udc80", "?"), ("ä€😀", "ä€😀")],
)
def test_what_must_be_escaped_is(text: str, written: str) -> None:
    assert xml.tag("K", text) == f"<K>{written}</K>"


@pytest.mark.parametrize(
    ("key", "encoded"),
    [("foo+1/bar", "foo%2B1/bar"), ("quux ab", "quux%20ab"), ("a%b", "a%25b"), ("~-._", "~-._"), ("ä", "%C3%A4"), ("\n", "%0A")],
)
def test_keys_are_encoded_for_listings(key: str, encoded: str) -> None:
    assert xml.encode_url(key) == encoded


def test_a_document_has_the_namespace_and_a_declaration() -> None:
    assert xml.document("A", [xml.wrap("B", xml.tag("C", 1), xml.tag("D", xml.truth(True)))]) == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<A xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><B><C>1</C><D>true</D></B></A>'
    )


# -- hostile documents -------------------------------------------------------------------------

BOMB = (
    b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]>'
    b"<Delete><Object><Key>&c;</Key></Object></Delete>"
)
OUTSIDE = b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&e;</Key></Object></Delete>'
HOSTILE = [
    b"",
    b" ",
    b"no xml",
    b"<Delete>",
    b"<Delete></Other>",
    b"<Other/>",
    b"<Delete/><Delete/>",
    b"<Delete/>rubbish",
    b"\x00\xff\xfe",
    b"<Delete><Object><Key>\xff</Key></Object></Delete>",
    b"<Delete><Object><Key>&#0;</Key></Object></Delete>",
    b"<Delete><Object><Key>&unknown;</Key></Object></Delete>",
    b'<?xml version="1.0" encoding="no-such-encoding"?><Delete/>',
    b"<!DOCTYPE Delete><Delete><Object><Key>a</Key></Object></Delete>",
    b"<!DOCTYPE Delete SYSTEM 'http://x.invalid/a.dtd'><Delete/>",
    BOMB,
    OUTSIDE,
    b"<Delete>" + b"<a>" * 100 + b"</a>" * 100 + b"</Delete>",
    b"<Delete>" * 100_000,
    b"<Delete>" + b"<a/>" * 200_000 + b"</Delete>",
    b"<Delete " + b"a='1' " * 10 + b"/>",
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_not_well_formed_or_hostile_is_malformed(body: bytes) -> None:
    assert refused(xml.parse_delete, body) == "MalformedXML"


@pytest.mark.parametrize("parse", [xml.parse_complete, xml.parse_tagging, xml.parse_cors, xml.parse_versioning, xml.parse_location])
@pytest.mark.parametrize("body", [body for body in HOSTILE if body.strip()], ids=range(len(HOSTILE) - 2))
def test_no_parser_takes_a_hostile_document(parse: object, body: bytes) -> None:
    assert refused(parse, body) in ("MalformedXML", "MaxMessageLengthExceeded")


def test_a_document_of_100_mebibytes_is_refused_before_it_is_read() -> None:
    assert refused(xml.parse_delete, bytes(100 << 20)) == "MaxMessageLengthExceeded"


@given(st.binary(max_size=200))
def test_rubbish_is_malformed(body: bytes) -> None:
    assert refused(xml.parse_delete, b"<Delete>" + body) == "MalformedXML"


# -- DeleteObjects -------------------------------------------------------------------------------


def test_what_to_delete_is_read_in_order() -> None:
    body = b"""<?xml version="1.0" encoding="UTF-8"?>
    <Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>
      <Object><Key> a&amp;b&#10;</Key></Object>
      <Object><Key>c</Key><VersionId>null</VersionId><ETag>"e"</ETag><Size>3</Size><LastModifiedTime>x</LastModifiedTime></Object>
    </Delete>"""
    assert xml.parse_delete(body) == ((Doomed(" a&b\n"), Doomed("c", "null", '"e"', "x", "3")), True)


def test_no_namespace_and_no_quiet_will_do() -> None:
    assert xml.parse_delete(b"<Delete><Object><Key>a</Key></Object></Delete>") == ((Doomed("a"),), False)


@pytest.mark.parametrize(("count", "code"), [(0, "MalformedXML"), (1000, None), (1001, "MalformedXML")])
def test_a_thousand_keys_is_the_most(count: int, code: str | None) -> None:
    body = xml.document("Delete", [xml.wrap("Object", xml.tag("Key", "k" * 1024))] * count)
    if code is None:
        assert len(xml.parse_delete(body)[0]) == count
    else:
        assert refused(xml.parse_delete, body) == code


@pytest.mark.parametrize(
    ("inner", "code"), [("", "MalformedXML"), ("<Key/>", "UserKeyMustBeSpecified"), ("<Key>a</Key><Key>b</Key>", "MalformedXML")]
)
def test_an_object_to_delete_has_one_key(inner: str, code: str) -> None:
    assert refused(xml.parse_delete, f"<Delete><Object>{inner}</Object></Delete>".encode()) == code


# -- CompleteMultipartUpload ---------------------------------------------------------------------


def complete(inner: str) -> bytes:
    return f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()


def test_parts_are_read_with_quotes_in_any_form_and_checksums() -> None:
    body = complete(
        "<Part><PartNumber>1</PartNumber><ETag>&#34;a&#34;</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>"
        '<Part><ETag>"b-2"</ETag><PartNumber> 2 </PartNumber></Part><Part><PartNumber>10000</PartNumber><ETag>c</ETag></Part>'
    )
    assert xml.parse_complete(body) == (NamedPart(1, "a", ((Algorithm.CRC32, "AAAAAA=="),)), NamedPart(2, "b-2"), NamedPart(10000, "c"))


def test_ten_thousand_parts_with_checksums_are_read() -> None:
    part = "<Part><PartNumber>{}</PartNumber><ETag>" + "e" * 32 + "</ETag><ChecksumSHA256>" + "A" * 43 + "=</ChecksumSHA256></Part>"
    assert len(xml.parse_complete(complete("".join(part.format(number) for number in range(1, 10_001))))) == 10_000


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ("", "MalformedXML"),
        ("<Part><PartNumber>1</PartNumber></Part>", "MalformedXML"),
        ("<Part><ETag>a</ETag></Part>", "MalformedXML"),
        ("<Part><PartNumber>x</PartNumber><ETag>a</ETag></Part>", "MalformedXML"),
        ("<Part><PartNumber>0</PartNumber><ETag>a</ETag></Part>", "InvalidArgument"),
        ("<Part><PartNumber>-1</PartNumber><ETag>a</ETag></Part>", "InvalidArgument"),
        ("<Part><PartNumber>10001</PartNumber><ETag>a</ETag></Part>", "InvalidArgument"),
    ],
)
def test_a_completion_names_parts_by_number_and_etag(inner: str, code: str) -> None:
    assert refused(xml.parse_complete, complete(inner)) == code


# -- the small ones ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "location"),
    [
        (b"", ""),
        (b"  ", ""),
        (b"<CreateBucketConfiguration/>", ""),
        (b"<CreateBucketConfiguration><LocationConstraint>us-east-1</LocationConstraint></CreateBucketConfiguration>", "us-east-1"),
    ],
)
def test_the_location_of_a_bucket(body: bytes, location: str) -> None:
    assert xml.parse_location(body) == location


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("<Status>Enabled</Status>", True),
        ("<Status>Suspended</Status><MfaDelete>Disabled</MfaDelete>", False),
        ("", "IllegalVersioningConfigurationException"),
        ("<Status>enabled</Status>", "MalformedXML"),
        ("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>", "NotImplemented"),
    ],
)
def test_versioning_is_enabled_or_suspended(inner: str, expected: bool | str) -> None:
    body = f"<VersioningConfiguration>{inner}</VersioningConfiguration>".encode()
    if isinstance(expected, str):
        assert refused(xml.parse_versioning, body) == expected
    else:
        assert xml.parse_versioning(body) is expected
        assert xml.parse_versioning(xml.versioning_document("Enabled"))
    assert b"Status" not in xml.versioning_document("")


def test_tags_come_back_in_their_order() -> None:
    tags = (("b", "1"), ("a", ""), ("c d", "e+f"))
    assert xml.parse_tagging(xml.tagging_document(tags)) == tags
    assert xml.parse_tagging(xml.tagging_document(())) == ()
    many = tuple((str(number), "") for number in range(50))
    assert xml.parse_tagging(xml.tagging_document(many), BUCKET_TAGS) == many
    assert refused(xml.parse_tagging, xml.tagging_document(many)) == "InvalidTag"


@pytest.mark.parametrize(
    "inner", ["", "<TagSet/><TagSet/>", "<TagSet><Tag><Key>a</Key></Tag></TagSet>", "<TagSet><Tag><Value>a</Value></Tag></TagSet>"]
)
def test_a_tagging_document_has_one_set_of_whole_tags(inner: str) -> None:
    assert refused(xml.parse_tagging, f"<Tagging>{inner}</Tagging>".encode()) == "MalformedXML"


def test_cors_rules_come_back_as_they_were() -> None:
    rules = (CorsRule(("*",), ("GET", "PUT"), ("x-*",), ("etag",), 3000, "one"), CorsRule(("http://a", "http://*.b"), ("DELETE",)))
    assert xml.parse_cors(xml.cors_document(rules)) == rules


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ("", "MalformedXML"),
        ("<CORSRule><AllowedMethod>GET</AllowedMethod></CORSRule>", "MalformedXML"),
        ("<CORSRule><AllowedOrigin>*</AllowedOrigin></CORSRule>", "MalformedXML"),
        ("<CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>PATCH</AllowedMethod></CORSRule>", "InvalidRequest"),
        ("<CORSRule><AllowedOrigin>*.*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule>", "InvalidRequest"),
        (
            "<CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod><MaxAgeSeconds>x</MaxAgeSeconds></CORSRule>",
            "MalformedXML",
        ),
        ("<CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule>" * 101, "MalformedXML"),
    ],
)
def test_cors_rules_that_s3_would_not_store_are_refused(inner: str, code: str) -> None:
    assert refused(xml.parse_cors, f"<CORSConfiguration>{inner}</CORSConfiguration>".encode()) == code
