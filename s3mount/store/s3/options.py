"""What the user chooses about an S3 service.

Owns: the options' shapes, units and defaults.
Must not know: how a request is made, where an option comes from (command line, -o, environment).

Credentials are not among them: they come from botocore's chain (environment, profile, SSO, assume-role, web identity, container,
instance metadata, process), and so do proxies (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Operations that the service may work on for minutes before it answers, in seconds: it joins or copies up to 5 GiB meanwhile.
THINKING = {"CompleteMultipartUpload": 600.0, "CopyObject": 600.0, "UploadPartCopy": 300.0, "DeleteObjects": 120.0}

Addressing = Literal["auto", "path", "virtual"]
Encryption = Literal["AES256", "aws:kms", "aws:kms:dsse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """Where the service is and how it wants to be asked. Times in seconds."""

    endpoint: str | None = None
    """URL of the service; None: botocore decides (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile, AWS itself)."""
    region: str | None = None
    """None: botocore decides (AWS_REGION, AWS_DEFAULT_REGION, the profile), us-east-1 where it does not know."""
    profile: str | None = None
    addressing: Addressing = "auto"
    """`path` puts the bucket into the path, `virtual` into the host name; `auto`: virtual on AWS, path on an endpoint of one's own."""
    no_sign: bool = False
    """Ask anonymously."""
    requester_pays: bool = False
    sse: Encryption | None = None
    sse_kms_key_id: str | None = None
    bucket_owner: str | None = None
    """Account id that must own the bucket; the service refuses everything else."""
    ca_bundle: Path | None = None
    """PEM file of the authorities to trust; None: botocore decides (AWS_CA_BUNDLE, its own)."""
    dual_stack: bool = False
    """IPv6 as well as IPv4 (AWS)."""
    last_writer_wins: bool = False
    """Send no conditions with writes: for services that do not know If-Match or If-None-Match there."""
    connect_s: float = 10.0
    """To a connected socket, TLS included."""
    first_byte_s: float = 30.0
    """From the request's last byte to the answer's first."""
    stall_s: float = 30.0
    """Between two bytes of a body, either way."""
    connections: int = 112
    """Requests at once, all kinds together."""
