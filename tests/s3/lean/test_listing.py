"""A listing's XML: what becomes of it, and what is refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import Unavailable
from s3mount.model import Key, ObjectInfo
from s3mount.store.s3.lean.listing import parse_listing
from s3mount.store.s3.lean.plain import plain_objects
from s3mount.store.s3.lean.wire import Garbled

XMLNS = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
WHEN = "<LastModified>2026-11-21T02:40:00.000Z</LastModified>"
WHEN_NS = 1795228800 * 10**9


def contents(key: str, size: str = "3", more: str = "", when: str = WHEN) -> str:
    return f"<Contents><Key>{key}</Key>{when}<ETag>&quot;tag&quot;</ETag><Size>{size}</Size>{more}</Contents>"


def document(*rows: str, space: str = XMLNS, encoded: bool = True, truncated: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    echo = "<EncodingType>url</EncodingType>" if encoded else ""
    return f"<?xml version='1.0' encoding='UTF-8'?>\n<ListBucketResult{space}>{echo}{truncated}{''.join(rows)}</ListBucketResult>".encode()


def keys(raw: bytes) -> list[str]:
    return [info.key for info in parse_listing(raw).objects]


@pytest.mark.parametrize("space", [XMLNS, "", ' xmlns="http://doc.example.com/2006"'])
def test_an_object_has_all_that_the_listing_says_and_no_metadata(space: str) -> None:
    more = "<Owner><ID>me</ID></Owner><StorageClass>GLACIER</StorageClass><ChecksumType>FULL_OBJECT</ChecksumType>"
    listed = parse_listing(document(contents("a%2Fb", more=more), "<CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes>", space=space))
    expected = ObjectInfo(key=Key("a/b"), size=3, etag=listed.objects[0].etag, mtime_ns=WHEN_NS, storage_class="GLACIER", metadata=None)
    assert (listed.objects, listed.prefixes, listed.token) == ((expected,), ("c/",), None)
    assert listed.objects[0].etag == "tag"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_every_key_comes_through_url_encoding(key: str) -> None:
    assert keys(document(contents(quote(key, safe="/")))) == [key]


def test_a_plus_is_a_blank_only_where_the_server_says_that_it_encoded() -> None:
    assert keys(document(contents("a+b%2Bc"))) == ["a b+c"]
    assert keys(document(contents("a+b%2Bc&amp;"), encoded=False)) == ["a+b%2Bc&"]


def test_what_comes_in_another_order_is_put_right() -> None:
    listed = parse_listing(
        document(
            contents("b"), contents("%C3%BC"), contents("Z"), *(f"<CommonPrefixes><Prefix>{p}</Prefix></CommonPrefixes>" for p in "zY")
        )
    )
    assert [info.key for info in listed.objects] == ["Z", "b", "ü"]
    assert listed.prefixes == ("Y", "z")


def test_a_truncated_listing_says_how_it_goes_on() -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;k</NextContinuationToken>"
    assert parse_listing(document(contents("a"), truncated=more)).token == "t&k"
    with pytest.raises(Garbled):
        parse_listing(document(contents("a"), truncated="<IsTruncated>true</IsTruncated>"))


def test_an_empty_listing_is_one() -> None:
    listed = parse_listing(document())
    assert (listed.objects, listed.prefixes, listed.token) == ((), (), None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<ListBucketResult>",
        b"<Error><Code>InternalError</Code></Error>",
        b"<html/>",
        b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'><ListBucketResult/>",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult>&a;</ListBucketResult>",
        "<?xml version='1.0' encoding='utf-16'?><!DOCTYPE x><ListBucketResult/>".encode("utf-16"),
        b"<ListBucketResult>&undefined;</ListBucketResult>",
        document(contents("a", size="-1")),
        document(contents("a", size="x")),
        document(contents("a", size="")),
        document(contents("a", when="")),
        document(contents("a", when="<LastModified>yesterday</LastModified>")),
        document(contents("%FF")),
        document("<Contents><Size>3</Size></Contents>"),
        document("<CommonPrefixes><Prefix>%C3</Prefix></CommonPrefixes>"),
        document(contents("")),
    ],
)
def test_a_document_that_is_no_listing_is_refused(raw: bytes) -> None:
    with pytest.raises(Unavailable):
        parse_listing(raw)


@given(st.binary(max_size=100))
def test_no_bytes_make_the_parser_fail_otherwise(raw: bytes) -> None:
    try:
        parse_listing(document(contents("a")).replace(b"<Key>a</Key>", raw))
    except Unavailable:
        pass


# -- objects that are all written in the same way -----------------------------------------------

STAMP = "2026-11-21T02:40:00.000Z"
SHAPES = {
    "AWS": "<Contents><Key>{key}</Key><LastModified>{stamp}</LastModified><ETag>&quot;{tag}&quot;</ETag>"
    "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType><Size>{size}</Size>"
    "<Owner><ID>me</ID><DisplayName/></Owner><StorageClass>{kind}</StorageClass></Contents>",
    "Go": '<Contents><Key>{key}</Key><LastModified>{stamp}</LastModified><ETag>"{tag}"</ETag><Size>{size}</Size>'
    "<StorageClass>{kind}</StorageClass></Contents>",
    "moto": "<Contents><Key>{key}</Key><LastModified>{stamp}</LastModified><ETag>&quot;{tag}&quot;</ETag><Size>{size}</Size>"
    "<StorageClass>{kind}</StorageClass></Contents>",
    "bare": "<Contents><Size>{size}</Size><ETag>{tag}</ETag><LastModified>{stamp}</LastModified><Key>{key}</Key></Contents>",
}
texts = st.sampled_from(["a", "b", "c%2Fd", "e+f", "%C3%BC", "%FF", "", "x&amp;y", "&#65;", "ü", '"', "]]&gt;", "<i/>", " "])
rows = st.tuples(
    texts,
    st.sampled_from(
        [STAMP, STAMP, "2026-11-21T02:40:59.123Z", "2026-11-21T02:40:00Z", "2026-11-21T02:40:00+01:00", "2026-13-41T02:40:00.000Z", "now"]
    ),
    st.sampled_from(["0123", "0123", "a-2", "", "&quot;", '"', 'a"b', "W/&quot;x&quot;"]),
    st.sampled_from(["3", "3", "17", "007", "", "-1", "9" * 30]),
    st.sampled_from(["STANDARD", "STANDARD", "GLACIER", ""]),
)
between = st.sampled_from(
    [""] * 8 + [" ", "\n", "<Owner/>", "<!-- <Contents> -->", "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>", "text"]
)


def outcome(raw: bytes) -> object:
    try:
        return parse_listing(raw)
    except Unavailable as error:
        return type(error)


@given(st.sampled_from(sorted(SHAPES)), st.lists(st.tuples(rows, between), max_size=4), st.booleans())
def test_what_is_written_plainly_is_read_as_the_parser_reads_it(shape: str, told: list[tuple[tuple[str, ...], str]], encoded: bool) -> None:
    written = [
        SHAPES[shape].format(key=key, stamp=stamp, tag=tag, size=size, kind=kind) + gap for (key, stamp, tag, size, kind), gap in told
    ]
    assert outcome(document(*written, encoded=encoded)) == outcome(document(*written, "<!-- not plain -->", encoded=encoded))


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_servers_write_plainly(shape: str) -> None:
    written = [SHAPES[shape].format(key=f"k{number}", stamp=STAMP, tag="00", size=number, kind="STANDARD") for number in range(3)]
    found = plain_objects(document(*written))
    assert found is not None
    assert (found.keys, found.sizes) == (("k0", "k1", "k2"), ("0", "1", "2"))
    assert [info.size for info in parse_listing(document(*written)).objects] == [0, 1, 2]


@pytest.mark.parametrize("odd", ["<Contents/>", "<Owner><Contents></Contents></Owner>", "<Contents><Key>b</Key></Contents>"])
def test_nothing_between_two_objects_is_passed_over(odd: str) -> None:
    raw = document(contents("a"), odd, contents("c"))
    assert plain_objects(raw) is None


def test_objects_within_something_else_are_none() -> None:
    assert keys(document("<Other>", contents("a"), contents("b"), "</Other>")) == []
