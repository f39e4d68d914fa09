"""Where the mount's process says what happened.

Owns: the choice of a place (a file, the terminal, the system log) and the form of a line.
Must not know: who logs what.

In the background, without `--log-file`, lines go to the system log; where there is none (containers), to a small file beside the runtime
records.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler, SysLogHandler, WatchedFileHandler
from pathlib import Path

from s3mount.errors import AccessDenied

SYSTEM_LOG = Path("/dev/log")
LINE = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"
SYSTEM_LINE = "s3mount[%(process)d]: %(levelname)s: %(message)s"

# The fallback file is nobody's care, so it stays small: this, twice.
FALLBACK_BYTES = 4 * 1024 * 1024

# Whoever logs in this process, beside our own modules.
LOGGERS = ("s3mount", "pyfuse3", "py.warnings")


def log_to(place: Path | None, *, level: str, foreground: bool, fallback: Path) -> None:
    """Send this process's log to *place*, or to where it belongs by default. Raises AccessDenied where *place* cannot be written."""
    handler = _file(place) if place else logging.StreamHandler(sys.stderr) if foreground else _system(fallback)
    if not isinstance(handler, SysLogHandler):
        handler.setFormatter(logging.Formatter(LINE))
    handler.addFilter(_has_listener)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written must not print tracebacks over the terminal
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())


def _has_listener(record: logging.LogRecord) -> bool:
    """Not so for replies that the kernel no longer wants, because the mount was taken off meanwhile: RELEASEs that commit, above all."""
    return not (record.name == "pyfuse3" and "fuse_reply_* failed" in record.getMessage())


def _file(place: Path) -> logging.Handler:
    try:
        return WatchedFileHandler(place, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise AccessDenied(f"the log file {place} cannot be written: {error.strerror}") from None


def _system(fallback: Path) -> logging.Handler:
    if not SYSTEM_LOG.is_socket():  # the handler itself would take a missing one without a word, and print a traceback for each line
        return RotatingFileHandler(fallback, maxBytes=FALLBACK_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace")
    handler = SysLogHandler(str(SYSTEM_LOG), facility=SysLogHandler.LOG_DAEMON)
    handler.setFormatter(logging.Formatter(SYSTEM_LINE))
    return handler
