"""What this service turned out to lack, found out as it is used.

Owns: that it is said once in the log, and for good to whoever asks for the state of a mount.
Must not know: requests, what is done instead.
"""

from __future__ import annotations

import logging
from enum import Enum

logger = logging.getLogger(__name__)


class Lack(Enum):
    """Each as what it means for the user."""

    PART_COPY = "it copies no parts of objects: large ones that are edited are read and sent anew, all of them"
    COPY_CONDITIONS = "it reads over conditions of copies: what they are to is looked at instead"
    COMPLETION_CONDITIONS = "it reads over conditions of completed uploads: the object is looked at before instead"
    LASTING_ETAGS = "it calls an object otherwise than its upload: each is looked at once more when it is completed"
    MANY_DELETES = "it deletes one key with each request only"


class Lacks:
    """Of one service."""

    def __init__(self) -> None:
        self._found: dict[Lack, None] = {}

    def __repr__(self) -> str:
        return f"<Lacks {', '.join(lack.name for lack in self._found) or 'nothing'}>"

    def __contains__(self, lack: Lack) -> bool:
        return lack in self._found

    def learn(self, lack: Lack, reason: object = "") -> None:
        """Idempotent."""
        if lack not in self._found:
            self._found[lack] = None
            logger.info("The service lacks something: %s%s", lack.value, f" ({reason})" if reason else "")

    def told(self) -> list[str]:
        return [lack.value for lack in self._found]
