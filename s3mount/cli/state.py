"""Where a mount keeps what must outlive it: renames and uploads that a crash interrupted, files that could not be stored.

Owns: the folders' places.
Must not know: what is written there.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from s3mount.cli.open_store import data_folder
from s3mount.cli.store_options import Choice
from s3mount.config import StoreUrl
from s3mount.errors import UsageError


def journal_folder(url: StoreUrl, choice: Choice) -> Path | None:
    """The folder of *url*'s bucket in the user's state directory (XDG); None where the store needs no journal.

    The same bucket through another name of its endpoint has another folder: what was left there waits for a mount by that name.
    """
    if url.scheme != "s3":
        return None
    return state_home() / "renames" / _hashed(f"{choice.s3.endpoint or 'aws'}/{url.bucket}")


def pending_folders() -> Path:
    """The folder whose folders hold, for each bucket, what could not be stored."""
    return state_home() / "pending"


def pending_folder(url: StoreUrl, choice: Choice) -> Path:
    """The folder of *url*'s bucket for what could not be stored (or is not yet); nobody need have made it."""
    if url.scheme == "local":
        where = f"local:{data_folder(choice.data)}"
    else:
        where = endpoint_of(choice) or f"profile:{choice.s3.profile or os.environ.get('AWS_PROFILE', '')}"
    return pending_folders() / _hashed(f"{where}/{url.bucket}")


def uploads_folder(url: StoreUrl, choice: Choice) -> Path:
    """Where the multipart uploads to *url*'s bucket that are under way are written down."""
    return state_home() / "uploads" / _hashed(f"{endpoint_of(choice) or 'aws'}/{url.bucket}")


def write_back_folder(url: StoreUrl, choice: Choice) -> Path:
    """Where commits to *url*'s bucket wait that a mount with --write-back has not sent yet. Raises UsageError where none need wait."""
    if url.scheme != "s3":
        raise UsageError("--write-back is for s3://: local:// commits to local disk anyway.")
    return pending_folder(url, choice) / "write-back"


def state_home() -> Path:
    """This program's folder in the user's state directory (XDG)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "s3mount"


def endpoint_of(choice: Choice) -> str | None:
    """The service's URL as the options or the environment say it; None where a profile or AWS itself does."""
    environment = os.environ
    return choice.s3.endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None


def _hashed(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=12).hexdigest()
