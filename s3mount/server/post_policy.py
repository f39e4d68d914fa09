"""Browser uploads: the policy of a POST form, and its signature.

Owns: parsing of policies, their conditions, verification of both kinds of signed form.
Must not know: multipart/form-data, files, the clock (callers pass *now*, seconds since 1970).

*fields* maps lower-case names of the form's fields (all that come before the file) to values, `${filename}` already replaced in the key
(`resolve_key`). A policy must speak of every field but the exempt ones, and of the bucket, which counts as a field of that name.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from s3mount.server import sigv2, sigv4
from s3mount.server.access import KeyPair, Keyring
from s3mount.server.s3errors import S3Error

# A policy comes in a form field; S3 limits all fields before the file to 20 KB.
POLICY_BYTES = 20 * 1024
CONDITIONS = 256
# Fields that no policy needs to mention.
EXEMPT = frozenset({"awsaccesskeyid", "signature", "policy", "file", "x-amz-signature"})
_IGNORED = "x-ignore-"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?Z")

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Match:
    """`operator` is "eq" or "starts-with"; `name` is a field in lower case, without `$`."""

    operator: str
    name: str
    value: str

    def holds(self, given: str) -> bool:
        if self.operator == "eq":
            return given == self.value
        if self.name == "content-type":
            return all(part.strip().startswith(self.value) for part in given.split(","))
        return given.startswith(self.value)


@dataclass(frozen=True, slots=True)
class Policy:
    """`least` and `most` bound the file's length in bytes; None: no bound."""

    expires: int
    matches: tuple[Match, ...]
    least: int | None = None
    most: int | None = None

    def check(self, fields: Fields, *, bucket: str, now: float) -> None:
        """Raises AccessDenied. The file's length is judged by `check_length`, once it is known."""
        if self.expires <= now:
            raise _denied("Policy expired.")
        given = {**fields, "bucket": bucket}
        for match in self.matches:
            if not match.holds(given.get(match.name, "")):
                raise _denied(f'Policy Condition failed: ["{match.operator}", "${match.name}", "{match.value[:256]}"]')
        spoken_of = {match.name for match in self.matches} | EXEMPT
        extra = sorted(name for name in given if name not in spoken_of and not name.startswith(_IGNORED))
        if extra:
            raise _denied(f"Extra input fields: {', '.join(extra)[:256]}")

    def check_length(self, length: int) -> None:
        """Raises EntityTooSmall, EntityTooLarge."""
        if self.least is not None and length < self.least:
            raise S3Error("EntityTooSmall", ProposedSize=length, MinSizeAllowed=self.least)
        if self.most is not None and length > self.most:
            raise S3Error("EntityTooLarge", ProposedSize=length, MaxSizeAllowed=self.most)


def parse_policy(encoded: str) -> Policy:
    """Raises InvalidPolicyDocument."""
    document = _document(encoded)
    expiration, conditions = document.get("expiration"), document.get("conditions")
    if not isinstance(expiration, str):
        raise _invalid("Policy missing expiration.")
    if not isinstance(conditions, list) or len(conditions) > CONDITIONS:
        raise _invalid("Policy missing conditions.")
    matches: list[Match] = []
    least = most = None
    for condition in conditions:
        if isinstance(condition, list) and condition and str(condition[0]).lower() == "content-length-range":
            least, most = _length_range(condition)
        else:
            matches += _matches(condition)
    return Policy(_time(expiration), tuple(matches), least, most)


def _document(encoded: str) -> dict[str, object]:
    if len(encoded) > POLICY_BYTES:
        raise _invalid("Policy is too long.")
    try:
        found = json.loads(base64.b64decode("".join(encoded.split()), validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(found, dict):
        raise _invalid("Policy must be an object.")
    return found


def _matches(condition: object) -> list[Match]:
    if isinstance(condition, dict) and condition:
        return [_match("eq", f"${name}", value) for name, value in condition.items()]
    if isinstance(condition, list) and len(condition) == 3:
        return [_match(*condition)]
    raise _invalid("Invalid condition.")


def _match(operator: object, name: object, value: object) -> Match:
    if not isinstance(operator, str) or operator.lower() not in ("eq", "starts-with"):
        raise _invalid("Invalid condition: unknown operator.")
    if not isinstance(name, str) or not name.startswith("$") or not isinstance(value, str):
        raise _invalid("Invalid condition: it must name a field, with $, and a value.")
    return Match(operator.lower(), name[1:].lower(), value)


def _length_range(condition: list[object]) -> tuple[int, int]:
    """Both bounds; numbers may come as strings."""
    bounds = [int(str(bound)) for bound in condition[1:] if re.fullmatch(r"\d{1,18}", str(bound), re.ASCII)]
    if len(condition) != 3 or len(bounds) != 2:
        raise _invalid("Invalid content-length-range.")
    return bounds[0], bounds[1]


def _time(text: str) -> int:
    found = _TIME.fullmatch(text)
    try:
        return int(datetime.fromisoformat(f"{found[1]}+00:00" if found else "").timestamp())
    except ValueError:
        raise _invalid(f"Invalid 'expiration' value: '{text[:64]}'") from None


def _invalid(how: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {how}")


def _denied(how: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {how}")


def resolve_key(key: str, filename: str) -> str:
    """The key that a form asks for; of *filename* only what follows its last slash counts."""
    return key.replace("${filename}", re.split(r"[/\\]", filename)[-1])


# -- signatures ----------------------------------------------------------------------------


def is_signed(fields: Fields) -> bool:
    """Whether the form comes with a policy; without one it is an anonymous upload."""
    return "policy" in fields


def verify_form(fields: Fields, keys: Keyring) -> KeyPair:
    """Whose signature the policy has. Raises InvalidArgument (a field is missing), InvalidAccessKeyId, SignatureDoesNotMatch."""
    if "x-amz-signature" in fields or "x-amz-algorithm" in fields:
        return _verify_v4(fields, keys)
    pair = keys.find(_field(fields, "awsaccesskeyid", "AWSAccessKeyId"))
    given = _field(fields, "signature", "Signature")
    _compare(sigv2.signature_of(pair.secret, _field(fields, "policy", "Policy")), given, pair)
    return pair


def _verify_v4(fields: Fields, keys: Keyring) -> KeyPair:
    if _field(fields, "x-amz-algorithm", "X-Amz-Algorithm") != sigv4.ALGORITHM:
        raise S3Error("InvalidArgument", "Unsupported algorithm.", ArgumentName="X-Amz-Algorithm", ArgumentValue="")
    given = _field(fields, "x-amz-signature", "X-Amz-Signature")
    access_key, date, region = sigv4.parse_credential(_field(fields, "x-amz-credential", "X-Amz-Credential"))
    pair = keys.find(access_key)
    _compare(sigv4.sign(sigv4.signing_key(pair.secret, date, region), _field(fields, "policy", "Policy")), given, pair)
    return pair


def _field(fields: Fields, name: str, called: str) -> str:
    value = fields.get(name)
    if not value:
        sentence = f"Bucket POST must contain a field named '{called}'.  If it is specified, please check the order of the fields."
        raise S3Error("InvalidArgument", sentence, ArgumentName=called, ArgumentValue="")
    return value


def _compare(expected: str, given: str, pair: KeyPair) -> None:
    if not hmac.compare_digest(expected.encode(), given.encode(errors="surrogateescape")):
        raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=pair.access_key, SignatureProvided=given[:128])
