"""Where what could not be stored waits: one folder per bucket, which says which bucket that is and how it is reached.

Owns: `bucket.json` in each folder; finding folders again, also of buckets that nobody mounts any more.
Must not know: what is kept in the folders.

    $XDG_STATE_HOME/s3mount/pending/<hash of service and bucket>/bucket.json   the URL and the options of the mount, none of them secret
                                                                 kept/         the journal of what mounts could not store
                                                                 write-back/   the journal of a mount with --write-back

Credentials are never written down: whoever deals with a file later has the profile or the environment for it.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from s3mount.cli.open_store import data_folder
from s3mount.cli.state import endpoint_of, pending_folder, pending_folders
from s3mount.cli.store_options import Choice
from s3mount.config import StoreUrl, parse_url
from s3mount.errors import S3MountError
from s3mount.store.s3.options import S3Options

FORMAT = 1
NAME = "bucket.json"


@dataclass(frozen=True, slots=True)
class PendingPlace:
    """The folder of one bucket. `url` names the bucket alone; with `choice` it is reached as the mount reached it."""

    folder: Path
    url: StoreUrl
    choice: Choice

    @property
    def kept(self) -> Path:
        """The journal of what was kept."""
        return self.folder / "kept"

    @property
    def write_back(self) -> Path:
        """The journal of a mount with --write-back (see `state.write_back_folder`)."""
        return self.folder / "write-back"


def place_of(url: StoreUrl, choice: Choice) -> PendingPlace:
    """That of *url*'s bucket; nothing of it need be there."""
    return PendingPlace(pending_folder(url, choice), StoreUrl(url.scheme, url.bucket), _explicit(url, choice))


def describe(place: PendingPlace) -> None:
    """Write down which bucket *place* is for. Idempotent; raises OSError."""
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = json.dumps(_told(place), indent=1).encode()
    path = place.folder / NAME
    if path.exists() and path.read_bytes() == told:
        return
    aside = path.with_name(f".{secrets.token_hex(6)}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, told)
        os.fsync(fd)
    finally:
        os.close(fd)
    aside.replace(path)


def all_places() -> list[PendingPlace]:
    """Every folder of this user, whether its bucket is mounted or not. A folder that does not say what it is for is passed over."""
    found = [_read(path.parent) for path in sorted(pending_folders().glob(f"*/{NAME}"))]
    return sorted((place for place in found if place is not None), key=lambda place: (str(place.url), place.folder.name))


def reached_as(place: PendingPlace, given: Choice) -> PendingPlace:
    """*place* with the options that were *given* now instead of those of the mount, where they are not the defaults.

    But the data folder stays: with another one it would be another bucket.
    """
    plain = Choice()
    s3 = {option.name: value for option in fields(S3Options) if (value := getattr(given.s3, option.name)) != getattr(plain.s3, option.name)}
    retry_for_s = given.retry_for_s if given.retry_for_s != plain.retry_for_s else place.choice.retry_for_s
    return replace(place, choice=Choice(place.choice.data, replace(place.choice.s3, **s3), retry_for_s))


def _explicit(url: StoreUrl, choice: Choice) -> Choice:
    """*choice* with what the environment said: another command may have another one."""
    if url.scheme == "local":
        return Choice(data=data_folder(choice.data))
    profile = choice.s3.profile or os.environ.get("AWS_PROFILE")
    region = choice.s3.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return Choice(None, replace(choice.s3, endpoint=endpoint_of(choice), profile=profile, region=region), choice.retry_for_s)


def _told(place: PendingPlace) -> dict[str, Any]:
    options = {option.name: getattr(place.choice.s3, option.name) for option in fields(S3Options)}
    chosen = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return {
        "format": FORMAT,
        "url": str(place.url),
        "data": place.choice.data and str(place.choice.data),
        "retry_for_s": place.choice.retry_for_s,
        "s3": chosen,
    }


def _read(folder: Path) -> PendingPlace | None:
    try:
        told = json.loads((folder / NAME).read_bytes())
        s3 = {option.name: told["s3"][option.name] for option in fields(S3Options) if option.name in told["s3"]}
        if s3.get("ca_bundle"):
            s3["ca_bundle"] = Path(s3["ca_bundle"])
        choice = Choice(told["data"] and Path(told["data"]), S3Options(**s3), told["retry_for_s"])
        return PendingPlace(folder, parse_url(told["url"]), choice)
    except (OSError, ValueError, LookupError, TypeError, S3MountError):
        return None
