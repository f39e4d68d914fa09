"""Mutations of one object that are plain enough for the lane: what each is as a request, and what its answer says.

Owns: which operations these are, the shape of their requests, reading their answers. In and out in botocore's words, so that the client
can do the same where the lane cannot.
Must not know: connections, signatures, what a mutation is for. Pure.

Where a parameter goes (header, query, path) is read off botocore's description of the service, so that nothing is listed twice and every
option of the client holds here too. What is not text, a number or bytes is `Unfit`.

X1  An answer that is no answer of an S3 service to a mutation is Garbled: it may have happened.
X2  A success that holds an error document is the error (a copy begins its answer before it knows).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote
from xml.etree import ElementTree

from s3mount.store.s3 import answers
from s3mount.store.s3.body import Body
from s3mount.store.s3.lean.asking import Call, Refused
from s3mount.store.s3.lean.origin import KEY_SAFE, Origin, Unfit
from s3mount.store.s3.lean.wire import Garbled, Head
from s3mount.store.s3.options import THINKING

Answer = Mapping[str, Any]

# By botocore's names; whether the same request twice does no more than once.
FORMS = {"put_object": False, "copy_object": False, "delete_object": False, "upload_part": True, "upload_part_copy": True}
# An answer is a few hundred bytes, an error document may be long.
RESULT_BYTES = answers.DOCUMENT_BYTES

_BODILESS = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Form:
    """One operation. `places` has for each parameter the part of the request it goes into and its name there."""

    name: str
    method: Literal["PUT", "DELETE"]
    harmless: bool
    places: Mapping[str, tuple[str, str]]
    result: str | None

    def call(self, asked: answers.Asked, given: Mapping[str, Any]) -> Call:
        """The request with the parameters *given*. Raises Unfit."""
        fields: dict[str, str] = {}
        query: dict[str, str] = {}
        body = _BODILESS if self.method == "PUT" else None
        for parameter, value in given.items():
            place, name = self.places.get(parameter, ("", ""))
            match place:
                case "header":
                    fields[name] = _source(value) if parameter == "CopySource" else _text(parameter, value)
                case "headers":
                    fields |= {f"{name}{key}": _text(parameter, text) for key, text in value.items()}
                case "querystring":
                    query[name] = _text(parameter, value)
                case "body" if isinstance(value, Body):
                    body = value.view
                case "uri":
                    pass
                case _:
                    raise Unfit(f"{self.name} with {parameter} is not plain.")
        key = given["Key"]

        def target(origin: Origin) -> str:
            return origin.key_target(key, query=query)

        thinking = THINKING.get(self.name)
        return Call(method=self.method, asked=asked, target=target, fields=fields, body=body, harmless=self.harmless, thinking_s=thinking)

    def answer(self, head: Head, body: bytes) -> Answer:
        """What the answer says. Raises Refused, Garbled."""
        said: dict[str, Any] = {"ResponseMetadata": {"HTTPHeaders": head.fields}}
        if "etag" in head.fields:
            said["ETag"] = head.fields["etag"]
        if self.result is not None and body.strip():
            said[self.result] = _elements(head, body)
        return said


def form_of(operation: str, meta: Any) -> Form:
    """*operation* by botocore's description, a client's *meta*. Raises Unfit for what is not of FORMS."""
    if operation not in FORMS:
        raise Unfit(f"{operation} is the client's.")
    name = meta.method_to_api_mapping[operation]
    model = meta.service_model.operation_model(name)
    streamed = model.input_shape.serialization.get("payload")
    places = {}
    for parameter, shape in model.input_shape.members.items():
        place = "body" if parameter == streamed else shape.serialization.get("location", "")
        places[parameter] = (place, shape.serialization.get("name", parameter))
    return Form(name, model.http["method"], FORMS[operation], places, _payload(model.output_shape))


def _payload(shape: Any) -> str | None:
    """The member of an answer that is its document."""
    return None if shape is None else shape.serialization.get("payload")


def _text(parameter: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    # A field that is not ASCII, or has blanks at its ends, is not what it was when it arrives.
    if isinstance(value, str) and value.isascii() and value == value.strip():
        return value
    raise Unfit(f"{parameter} is not plain text.")


def _source(source: Mapping[str, str]) -> str:
    """As botocore writes it. The source behind an access point's name is written in another way."""
    if set(source) != {"Bucket", "Key"} or ":" in source["Bucket"]:
        raise Unfit("The source of the copy is not plain.")
    return quote(f"{source['Bucket']}/{source['Key']}", safe=KEY_SAFE)


def _elements(head: Head, body: bytes) -> dict[str, str]:
    """The document's elements. Some services begin with blanks, to show that they are still at it."""
    try:
        root = ElementTree.fromstring(body.strip()) if b"<!DOCTYPE" not in body else None
    except ElementTree.ParseError:
        root = None
    if root is None:
        raise Garbled("The endpoint's answer to a change is not XML.")
    if root.tag.rpartition("}")[2] == "Error":
        raise Refused(answers.read_refusal(500, head.fields, body.strip()))
    return {child.tag.rpartition("}")[2]: child.text or "" for child in root}
