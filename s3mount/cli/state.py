"""Where a mount keeps what must outlive it: renames that a crash interrupted.

Owns: the folder's place.
Must not know: what is written there.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from s3mount.cli.store_options import Choice
from s3mount.config import StoreUrl


def journal_folder(url: StoreUrl, choice: Choice) -> Path | None:
    """The folder of *url*'s bucket in the user's state directory (XDG); None where the store needs no journal.

    The same bucket through another name of its endpoint has another folder: what was left there waits for a mount by that name.
    """
    if url.scheme != "s3":
        return None
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state"
    where = f"{choice.s3.endpoint or 'aws'}/{url.bucket}"
    return home / "s3mount" / "renames" / hashlib.blake2b(where.encode(), digest_size=12).hexdigest()
