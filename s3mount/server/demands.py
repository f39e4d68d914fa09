"""Headers that ask for something besides the operation itself: what is accepted, what is not done here.

Owns: the rule for each. Must not know: operations.

What S3 does by default or what changes nothing here is accepted (a private ACL, AES256, no lock, who pays); what would promise something
that does not happen is NotImplemented.
"""

from __future__ import annotations

from s3mount.server.calls import OWNER
from s3mount.server.s3errors import S3Error, not_implemented
from s3mount.server.wire import S3Request

_REFUSED = frozenset(
    {
        "x-amz-grant-full-control",
        "x-amz-grant-read",
        "x-amz-grant-read-acp",
        "x-amz-grant-write",
        "x-amz-grant-write-acp",
        "x-amz-object-lock-mode",
        "x-amz-object-lock-retain-until-date",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-server-side-encryption-customer-algorithm",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-copy-source-server-side-encryption-customer-algorithm",
        "x-amz-website-redirect-location",
        "x-amz-write-offset-bytes",
        "x-amz-mfa",
        "x-amz-rename-source",
    }
)
# Header -> the values that ask for nothing.
_HARMLESS = {
    "x-amz-acl": frozenset({"private", "bucket-owner-full-control", "bucket-owner-read"}),
    "x-amz-server-side-encryption": frozenset({"AES256"}),
    "x-amz-object-lock-legal-hold": frozenset({"OFF"}),
    "x-amz-bucket-object-lock-enabled": frozenset({"false", "False"}),
    "x-amz-object-ownership": frozenset({"BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"}),
}


def require_possible(request: S3Request) -> None:
    """Raises NotImplemented, AccessDenied (another owner is expected)."""
    for name, value in request.headers:
        if not name.startswith("x-amz-"):
            continue
        if name in _REFUSED or value not in _HARMLESS.get(name, (value,)):
            raise not_implemented(name)
        if name in ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner") and value != OWNER:
            raise S3Error("AccessDenied")
