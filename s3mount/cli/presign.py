"""`s3mount presign`: a URL that anybody may use, for a time.

Owns: its options, where the key pair comes from, what counts as a URL to presign.
Must not know: how a signature is made.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import click

from s3mount.cli.serve import read_settings
from s3mount.config import parse_duration, parse_url
from s3mount.errors import UsageError
from s3mount.server.sigv4 import EXPIRES
from s3mount.server.sigv4 import presign as presigned

SAFE = "/-._~%"
METHODS = ("GET", "PUT", "HEAD", "DELETE")


@click.command()
@click.argument("url")
@click.option("--expires", default="1h", show_default=True, metavar="DURATION", help="How long the URL holds: 1s to 7d.")
@click.option("--method", type=click.Choice(METHODS, case_sensitive=False), default="GET", show_default=True, help="What it allows.")
@click.option("--endpoint", default="http://127.0.0.1:9000", show_default=True, help="Where the server is, for a local:// URL.")
@click.option("--region", default="us-east-1", show_default=True, help="The region to sign for.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Take the first key pair of this configuration file.")
def presign(*, url: str, expires: str, method: str, endpoint: str, region: str, config: Path | None) -> None:
    """Sign a URL, so that whoever has it may use it for a time.

    URL is http[s]://HOST[:PORT]/BUCKET/KEY, or local://BUCKET/KEY on --endpoint. The key pair comes from --config, else from
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    access_key, secret = _key_pair(config)
    seconds = parse_duration(expires)
    if seconds != int(seconds) or not 1 <= seconds <= EXPIRES:
        raise UsageError(f"--expires must be whole seconds from 1s to {EXPIRES // 86400}d, not {expires}.")
    target = _target(url, endpoint)
    click.echo(presigned(target, access_key=access_key, secret=secret, now=time.time(), method=method, region=region, expires=int(seconds)))


def _key_pair(config: Path | None) -> tuple[str, str]:
    if config is not None:
        keys = read_settings(config).keys
        if not keys:
            raise UsageError(f"{config} lists no keys.")
        return keys[0].access_key, keys[0].secret
    access_key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret:
        raise UsageError("No key pair: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a --config with keys.")
    return access_key, secret


def _target(url: str, endpoint: str) -> str:
    """The URL to sign, its path encoded as it will be sent."""
    if "://" in url and not url.lower().startswith(("http://", "https://")):
        named = parse_url(url)
        if not named.key:
            raise UsageError(f"'{url}' names no object: write local://BUCKET/KEY.")
        url = f"{endpoint.rstrip('/')}/{named.bucket}/{quote(named.key, safe='/-._~')}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"'{url}' is no URL to presign: write http://HOST/BUCKET/KEY or local://BUCKET/KEY.")
    return parts._replace(path=quote(parts.path, safe=SAFE)).geturl()
