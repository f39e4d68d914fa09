"""Every error that the server can answer: S3's codes, their HTTP statuses and sentences, and the XML they travel in.

Owns: the table code -> (status, sentence); the translation of what the engine says; the error document.
Must not know: requests, replies, who raises.

A handler raises `S3Error`; one place catches it and sends `body()` with `status`. An answer to HEAD has the status and no body.
What is no S3Error and no StoreError is a defect: it is logged there and answered InternalError.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

from s3mount import errors

# S3's codes, with the status that AWS answers and its sentence (API reference, "Error responses"; and what AWS was seen to send).
TABLE: dict[str, tuple[int, str]] = {
    "AccessDenied": (403, "Access Denied"),
    "AccessForbidden": (403, "CORSResponse: This CORS request is not allowed."),
    "AuthorizationHeaderMalformed": (400, "The authorization header that you provided is not valid."),
    "AuthorizationQueryParametersError": (400, "The authorization query parameters that you provided are not valid."),
    "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match what the server received."),
    "BadRequest": (400, "Bad Request"),
    "BucketAlreadyExists": (409, "The requested bucket name is not available. Select a different name and try again."),
    "BucketAlreadyOwnedByYou": (409, "Your previous request to create the named bucket succeeded and you already own it."),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
    "ConditionalRequestConflict": (409, "A conflicting conditional operation is currently in progress against this resource."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size"),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size"),
    "ExpiredToken": (400, "The provided token has expired."),
    "IllegalLocationConstraintException": (400, "The specified location constraint is incompatible with this endpoint."),
    "IllegalVersioningConfigurationException": (400, "The versioning configuration specified in the request is invalid."),
    "IncompleteBody": (400, "You did not provide the number of bytes specified by the Content-Length HTTP header."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidBucketState": (409, "The request is not valid with the current state of the bucket."),
    "InvalidDigest": (400, "The Content-MD5 you specified was invalid."),
    "InvalidLocationConstraint": (400, "The specified location-constraint is not valid"),
    "InvalidObjectState": (403, "The operation is not valid for the current state of the object."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found. "
        "The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
    ),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order. The parts list must be specified in order by part number."),
    "InvalidPolicyDocument": (400, "The content of the form does not meet the conditions specified in the policy document."),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidStorageClass": (400, "The storage class you specified is not valid"),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "KeyTooLongError": (400, "Your key is too long"),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "MalformedTrailerError": (
        400,
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    ),
    "MalformedXML": (400, "The XML you provided was not well-formed or did not validate against our published schema"),
    "MaxMessageLengthExceeded": (400, "Your request was too big."),
    "MaxPostPreDataLengthExceeded": (400, "Your POST request fields preceding the upload file were too large."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size"),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingRequestBodyError": (400, "Request Body is empty"),
    "MissingSecurityHeader": (400, "Your request was missing a required header"),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchTagSet": (404, "The TagSet does not exist"),
    "NoSuchUpload": (
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
    ),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NotImplemented": (501, "A header or operation you provided implies functionality that is not implemented"),
    "OperationAborted": (409, "A conflicting conditional operation is currently in progress against this resource. Please try again."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "RequestHeaderSectionTooLarge": (400, "Your request header section exceeds the maximum allowed size."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
    "RequestTimeout": (400, "Your socket connection to the server was not read from or written to within the timeout period."),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
    "TooManyBuckets": (400, "You have attempted to create more buckets than allowed"),
    "UserKeyMustBeSpecified": (
        400,
        "The bucket POST must contain the specified field name. If it is specified, check the order of the fields.",
    ),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
}

# What the engine says and what S3 calls it; by nearest class. The engine's own sentence is kept where S3's would say less.
FROM_STORE: dict[type[errors.S3MountError], str] = {
    errors.NotFound: "NoSuchKey",
    errors.NoSuchBucket: "NoSuchBucket",
    errors.BucketExists: "BucketAlreadyOwnedByYou",
    errors.BucketNotEmpty: "BucketNotEmpty",
    errors.NoSuchUpload: "NoSuchUpload",
    errors.InvalidPart: "InvalidPart",
    errors.AlreadyExists: "PreconditionFailed",
    errors.PreconditionFailed: "PreconditionFailed",
    errors.InvalidName: "InvalidArgument",
    errors.TooLarge: "EntityTooLarge",
    errors.AccessDenied: "AccessDenied",
    errors.Unsupported: "NotImplemented",
    errors.NoSpace: "ServiceUnavailable",
    errors.Throttled: "SlowDown",
    errors.Unavailable: "ServiceUnavailable",
    errors.TimedOut: "ServiceUnavailable",
    errors.OutcomeUnknown: "InternalError",
    errors.Corrupt: "InternalError",
    errors.NewerFormat: "InternalError",
    errors.Busy: "OperationAborted",
    errors.StoreError: "InternalError",
}
_OWN_SENTENCE = frozenset({"InvalidArgument", "ServiceUnavailable", "EntityTooLarge", "OperationAborted"})


class S3Error(errors.S3MountError):
    """One answer of S3: *code* from TABLE, a sentence (S3's own by default), further XML elements by name; `headers` go with the answer.

    `status` differs from the table's only where S3 answers one code with several statuses.
    """

    def __init__(self, code: str, message: str = "", /, **fields: object) -> None:
        self.status, sentence = TABLE[code]
        self.code = code
        self.message = message or sentence
        self.fields: Mapping[str, str] = {name: str(value) for name, value in fields.items()}
        self.headers: list[tuple[str, str]] = []
        super().__init__(f"{code}: {self.message}")

    def with_status(self, status: int) -> S3Error:
        self.status = status
        return self

    def body(self, *, resource: str, request_id: str, host_id: str = "") -> bytes:
        """The document, for everything but HEAD. *resource* is the path as it arrived, *request_id* what x-amz-request-id says."""
        given = {"Code": self.code, "Message": self.message, **self.fields}
        given.setdefault("Resource", resource)
        given |= {"RequestId": request_id, "HostId": host_id or request_id}
        inner = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in given.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()


def from_store(error: errors.StoreError, **fields: object) -> S3Error:
    """What S3 calls *error*. *fields* (Key, BucketName, UploadId ...) go into the document."""
    code = next(FROM_STORE[kind] for kind in type(error).__mro__ if kind in FROM_STORE)
    return S3Error(code, str(error) if code in _OWN_SENTENCE else "", **fields)


def not_implemented(what: str) -> S3Error:
    """A header or sub-resource *what* asks for something that this server does not do."""
    return S3Error("NotImplemented", Header=what)


def invalid_argument(message: str, name: str, value: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)


def _text(value: str) -> str:
    """Escaped; what XML 1.0 cannot say at all becomes a question mark, so that every client can read why it failed."""
    legal = "".join(char if (char >= " " or char in "\t\n\r") and char not in "\ufffe\uffff" else "?" for char in value)
    return escape(legal.encode(errors="replace").decode(), {"\r": "&#13;"})
