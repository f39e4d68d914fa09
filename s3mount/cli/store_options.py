"""The options that say where a store is and how it wants to be asked: the same for every command that takes URLs.

Owns: their spelling, their help, `Choice`, which they become.
Must not know: what is done with a store.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from s3mount.config import parse_duration
from s3mount.errors import UsageError
from s3mount.store.s3.options import S3Options

data_option: Callable[..., Any] = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="S3MOUNT_DATA",
    show_envvar=True,
    help="local://: the embedded store's folder; default: s3mount in the user's data directory (XDG).",
)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which stores are meant: the embedded store's folder (None: the default), and which S3 service, how patiently (in seconds)."""

    data: Path | None = None
    s3: S3Options = field(default_factory=S3Options)
    retry_for_s: float = 60.0


def seconds(text: str) -> float:
    """A time-out: more than nothing. Raises UsageError."""
    duration = parse_duration(text)
    if not duration > 0:
        raise UsageError(f"{text!r} is no time-out: give more than nothing.")
    return duration


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _option(spelling: str, text: str, **more: Any) -> Any:
    """An option of s3:// alone: beside the embedded store's it must say so."""
    return click.option(spelling, help=f"s3://: {text}", **more)


def _timeout(spelling: str, default: str, text: str, *, kind: Callable[[str], float] = seconds) -> Any:
    return _option(spelling, text, type=kind, metavar="SECONDS", default=default, show_default=True)


ENCRYPTIONS = click.Choice(["AES256", "aws:kms", "aws:kms:dsse"])
ADDRESSINGS = click.Choice(["auto", "path", "virtual"])

# Name of the field of S3Options -> its option.
S3_OPTIONS: dict[str, Any] = {
    "endpoint": _option("--endpoint-url", "the service. Default: AWS_ENDPOINT_URL, the profile, AWS.", metavar="URL"),
    "region": _option("--region", "the bucket's region. Default: AWS_REGION, the profile, the bucket's own.", metavar="NAME"),
    "profile": _option("--profile", "the profile of ~/.aws/config and credentials. Default: AWS_PROFILE.", metavar="NAME"),
    "addressing": _option(
        "--addressing", "where the bucket's name goes, into path or host.", type=ADDRESSINGS, default="auto", show_default=True
    ),
    "no_sign": _option("--no-sign-request", "ask anonymously, for public buckets.", is_flag=True),
    "requester_pays": _option("--requester-pays", "agree to pay for the requests.", is_flag=True),
    "sse": _option("--sse", "have what is written encrypted this way.", type=ENCRYPTIONS),
    "sse_kms_key_id": _option("--sse-kms-key-id", "with this key of the key service.", metavar="ID"),
    "bucket_owner": _option("--expected-bucket-owner", "refuse buckets of any other account.", metavar="ACCOUNT"),
    "ca_bundle": _option("--ca-bundle", "the authorities to trust (PEM). Default: AWS_CA_BUNDLE.", type=_path, metavar="FILE"),
    "dual_stack": _option("--dual-stack", "reach AWS by IPv6 as well.", is_flag=True),
    "last_writer_wins": _option("--last-writer-wins", "write without conditions, where a service has none.", is_flag=True),
    "connect_s": _timeout("--connect-timeout", "10", "give up a connection after this."),
    "first_byte_s": _timeout("--first-byte-timeout", "30", "give up an answer that does not begin."),
    "stall_s": _timeout("--stall-timeout", "30", "give up a transfer that stands still."),
}
# What click calls the options whose field has another name.
PARAMETERS = {
    "endpoint": "endpoint_url",
    "no_sign": "no_sign_request",
    "bucket_owner": "expected_bucket_owner",
    "connect_s": "connect_timeout",
    "first_byte_s": "first_byte_timeout",
    "stall_s": "stall_timeout",
}
RETRY_FOR = _timeout("--retry-for", "1m", "repeat for so long what may yet succeed.", kind=parse_duration)


def store_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """All of these options, handed to *function* as one parameter `choice`."""

    @functools.wraps(function)
    def with_choice(*arguments: Any, data: Path | None, retry_for: float, **given: Any) -> Any:
        values = {name: given.pop(PARAMETERS.get(name, name)) for name in S3_OPTIONS}
        data = data and data.expanduser().absolute()
        return function(*arguments, choice=Choice(data, S3Options(**values), retry_for), **given)

    for option in (RETRY_FOR, *reversed(S3_OPTIONS.values()), data_option):
        with_choice = option(with_choice)
    return with_choice
