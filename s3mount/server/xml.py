"""XML: what answers are written with, and the documents that requests carry.

Owns: escaping, `document`, `tag`; the bounded reader and each kind of document with its limits.
Must not know: where answers come from, who may ask.

Reading is bounded before it begins (LIMITS: bytes per kind of document; whoever receives a body refuses a longer one at its
Content-Length) and while it goes on: no DTD, hence no entities but XML's own five; DEPTH levels; ELEMENTS elements. What is not
well-formed or not of the expected shape is MalformedXML. Namespaces are ignored, as AWS does: some clients send none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote
from xml.parsers import expat

from s3mount.model import KiB, MiB
from s3mount.server.checksums import Algorithm
from s3mount.server.cors import CorsRule, parse_max_age, require_rules
from s3mount.server.s3errors import S3Error
from s3mount.server.tags import BUCKET_TAGS, OBJECT_TAGS, Tags, require_tags

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'

# Bytes of the largest document of each kind: 1000 keys of 1024 bytes, each byte escaped (AWS: 2 MiB); 10 000 parts with checksums;
# S3's 64 KB for CORS; the others are small.
LIMITS = {
    "Delete": 2 * MiB,
    "CompleteMultipartUpload": 8 * MiB,
    "CORSConfiguration": 64 * KiB,
    "Tagging": 64 * KiB,
    "CreateBucketConfiguration": 64 * KiB,
    "VersioningConfiguration": 64 * KiB,
}
DEPTH = 8
# 10 000 parts with number, ETag and a checksum or two each.
ELEMENTS = 80_000
DELETE_KEYS = 1000
PARTS = 10_000
_CHECKSUMS = {algorithm.element: algorithm for algorithm in Algorithm}

# -- writing -------------------------------------------------------------------------------

_SPECIAL = re.compile('[&<>"\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]')
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


def escape(text: str) -> str:
    """For content and attributes. What XML 1.0 cannot hold becomes a reference all the same, as AWS answers it."""
    return _SPECIAL.sub(lambda found: _NAMED.get(found[0]) or _reference(found[0]), text)


def _reference(char: str) -> str:
    return "?" if "\ud800" <= char <= "\udfff" else f"&#x{ord(char):x};"


def tag(name: str, value: object) -> str:
    """One element with text."""
    return f"<{name}>{escape(str(value))}</{name}>"


def wrap(name: str, *inner: str) -> str:
    """One element around what is XML already."""
    return f"<{name}>{''.join(inner)}</{name}>"


def truth(value: bool) -> str:
    return "true" if value else "false"


def document(root: str, inner: Iterable[str]) -> bytes:
    """A whole document in S3's namespace."""
    return f'{HEADER}<{root} xmlns="{NAMESPACE}">{"".join(inner)}</{root}>'.encode()


def encode_url(text: str) -> str:
    """A key in a listing with encoding-type=url: everything but letters, digits, `-._~/` in percents, a blank as %20."""
    return quote(text, safe="/", errors="replace")


# -- reading -------------------------------------------------------------------------------


@dataclass(slots=True)
class Node:
    """An element: local name, text directly in it, elements in it."""

    name: str
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def all(self, name: str) -> list[Node]:
        return [child for child in self.children if child.name == name]

    def value(self, name: str) -> str | None:
        """The text of the one child called *name*; None for none. Raises MalformedXML for several."""
        found = self.all(name)
        if len(found) > 1:
            raise malformed()
        return found[0].text if found else None

    def need(self, name: str) -> str:
        """Raises MalformedXML where it is missing."""
        value = self.value(name)
        if value is None:
            raise malformed()
        return value


def malformed() -> S3Error:
    return S3Error("MalformedXML")


def limit_of(root: str) -> int:
    return LIMITS[root]


def parse(body: bytes, root: str) -> Node:
    """The document, whose root must be called *root*. Raises MalformedXML, MaxMessageLengthExceeded."""
    if len(body) > LIMITS[root]:
        raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=LIMITS[root])
    reader = _Reader()
    try:
        reader.parser.Parse(body, True)
    except (expat.ExpatError, ValueError, LookupError):
        raise malformed() from None
    if reader.top is None or reader.top.name != root:
        raise malformed()
    return reader.top


class _Reader:
    """Builds nodes from expat's calls, within the bounds."""

    def __init__(self) -> None:
        self.top: Node | None = None
        self._open: list[Node] = []
        self._count = 0
        self.parser = expat.ParserCreate(namespace_separator="}")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse

    def _start(self, name: str, _attributes: object) -> None:
        self._count += 1
        if self._count > ELEMENTS or len(self._open) >= DEPTH:
            raise malformed()
        node = Node(name.rpartition("}")[2])
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.top = node
        self._open.append(node)

    def _end(self, _name: str) -> None:
        self._open.pop()

    def _characters(self, text: str) -> None:
        self._open[-1].text += text

    def _refuse(self, *_about: object) -> None:
        raise malformed()


@dataclass(frozen=True, slots=True)
class Doomed:
    """One object that DeleteObjects names, with the conditions that it must meet (texts as they came)."""

    key: str
    version_id: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    size: str | None = None


def parse_delete(body: bytes) -> tuple[tuple[Doomed, ...], bool]:
    """What to delete, and whether the answer is to name failures only. Raises MalformedXML: none, or more than DELETE_KEYS."""
    top = parse(body, "Delete")
    objects = top.all("Object")
    if not 1 <= len(objects) <= DELETE_KEYS:
        raise malformed()
    return tuple(map(_doomed, objects)), (top.value("Quiet") or "").strip().lower() == "true"


def _doomed(node: Node) -> Doomed:
    key = node.need("Key")
    if not key:
        raise S3Error("UserKeyMustBeSpecified")
    return Doomed(key, node.value("VersionId"), node.value("ETag"), node.value("LastModifiedTime"), node.value("Size"))


@dataclass(frozen=True, slots=True)
class NamedPart:
    """One part that a completion names: ETag without quotes, checksums as texts."""

    number: int
    etag: str
    checksums: tuple[tuple[Algorithm, str], ...] = ()


def parse_complete(body: bytes) -> tuple[NamedPart, ...]:
    """The parts in the order in which they are named. Raises MalformedXML (none: AWS says so too), InvalidArgument (number)."""
    parts = parse(body, "CompleteMultipartUpload").all("Part")
    if not 1 <= len(parts) <= PARTS:
        raise malformed()
    return tuple(map(_named_part, parts))


def _named_part(node: Node) -> NamedPart:
    number = node.need("PartNumber").strip()
    if not re.fullmatch(r"-?\d{1,9}", number, re.ASCII):
        raise malformed()
    if not 1 <= int(number) <= PARTS:
        sentence = f"Part number must be an integer between 1 and {PARTS}, inclusive"
        raise S3Error("InvalidArgument", sentence, ArgumentName="partNumber", ArgumentValue=number)
    etag = node.need("ETag").strip().strip('"')
    checksums = tuple((_CHECKSUMS[child.name], child.text.strip()) for child in node.children if child.name in _CHECKSUMS and child.text)
    return NamedPart(int(number), etag, checksums)


def parse_location(body: bytes) -> str:
    """The LocationConstraint of a new bucket; "" for none. Raises MalformedXML."""
    if not body.strip():
        return ""
    return (parse(body, "CreateBucketConfiguration").value("LocationConstraint") or "").strip()


def parse_versioning(body: bytes) -> bool:
    """True for Enabled, False for Suspended. Raises MalformedXML, IllegalVersioningConfigurationException, NotImplemented (MFA delete)."""
    top = parse(body, "VersioningConfiguration")
    if (top.value("MfaDelete") or top.value("MFADelete") or "Disabled").strip() == "Enabled":
        raise S3Error("NotImplemented", Header="MfaDelete")
    status = top.value("Status")
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException", "The Versioning element must be specified")
    if status.strip() not in ("Enabled", "Suspended"):
        raise malformed()
    return status.strip() == "Enabled"


def versioning_document(status: str) -> bytes:
    """*status* is Enabled, Suspended, or "" for a bucket that never kept versions."""
    return document("VersioningConfiguration", [tag("Status", status)] if status else [])


def parse_tagging(body: bytes, limit: int = OBJECT_TAGS) -> Tags:
    """Tags in the order in which they are named; *limit* is OBJECT_TAGS or BUCKET_TAGS. Raises MalformedXML, InvalidTag."""
    assert limit in (OBJECT_TAGS, BUCKET_TAGS)
    sets = parse(body, "Tagging").all("TagSet")
    if len(sets) != 1:
        raise malformed()
    return require_tags(tuple((node.need("Key"), node.need("Value")) for node in sets[0].all("Tag")), limit)


def tagging_document(tags: Tags) -> bytes:
    return document("Tagging", [wrap("TagSet", *(wrap("Tag", tag("Key", name), tag("Value", value)) for name, value in tags))])


def parse_cors(body: bytes) -> tuple[CorsRule, ...]:
    """Raises MalformedXML, InvalidRequest."""
    rules = tuple(map(_cors_rule, parse(body, "CORSConfiguration").all("CORSRule")))
    require_rules(rules)
    return rules


def _cors_rule(node: Node) -> CorsRule:
    def texts(name: str) -> tuple[str, ...]:
        return tuple(child.text.strip() for child in node.all(name))

    age = node.value("MaxAgeSeconds")
    return CorsRule(
        texts("AllowedOrigin"),
        texts("AllowedMethod"),
        texts("AllowedHeader"),
        texts("ExposeHeader"),
        None if age is None else parse_max_age(age.strip()),
        (node.value("ID") or "").strip(),
    )


def cors_document(rules: Iterable[CorsRule]) -> bytes:
    return document("CORSConfiguration", (wrap("CORSRule", *_cors_elements(rule)) for rule in rules))


def _cors_elements(rule: CorsRule) -> Iterable[str]:
    if rule.id:
        yield tag("ID", rule.id)
    lists = {"AllowedMethod": rule.methods, "AllowedOrigin": rule.origins, "AllowedHeader": rule.headers, "ExposeHeader": rule.expose}
    for name, values in lists.items():
        yield from (tag(name, value) for value in values)
    if rule.max_age is not None:
        yield tag("MaxAgeSeconds", rule.max_age)
