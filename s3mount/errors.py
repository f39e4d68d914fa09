"""Every failure, named by what the caller can do next; one table turns each into an errno.

Owns: both families and the table.
Must not know: who raises them, who shows them. No I/O.

`StoreError` is what an object store says, `FsError` what POSIX semantics say. Anything else that escapes is a defect:
the shell logs it with its traceback and answers EIO.
"""

from __future__ import annotations

import errno


class S3MountError(Exception):
    """Base of both families. Its text is one sentence for the user."""


class UsageError(S3MountError):
    """The request itself is wrong; the text says what to change. Exit status 2."""


# -- what a store says ------------------------------------------------------------------


class StoreError(S3MountError):
    """Base of what an object store says. `given_up`: it was waited out already, for as long as the policy has it; do not begin again."""

    given_up: bool = False


class NotFound(StoreError):
    """No such key: look elsewhere or create it."""


class NoSuchBucket(StoreError):
    """No such bucket: create it, or mend its name."""


class BucketExists(StoreError):
    """The bucket is there already: use it."""


class BucketNotEmpty(StoreError):
    """Objects are left in the bucket: remove them first."""


class NoSuchUpload(StoreError):
    """The multipart upload is over or never was: begin another."""


class InvalidPart(StoreError):
    """A part that completion names was not received so: send it again."""


class AlreadyExists(StoreError):
    """The key is there and must not be: choose another, or overwrite on purpose."""


class PreconditionFailed(StoreError):
    """The object is another version than the one expected: read it again."""


class InvalidName(StoreError, UsageError):
    """Not a valid bucket name or key: choose another."""


class TooLarge(StoreError):
    """Beyond what the store can hold in one object."""


class AccessDenied(StoreError):
    """Not allowed with these credentials or rights: change them."""


class Misdirected(StoreError):
    """The bucket is asked for in the wrong place: ask in `region` ("" where the store does not say which)."""

    def __init__(self, sentence: str, *, region: str = "") -> None:
        super().__init__(sentence)
        self.region = region


class Archived(StoreError):
    """The object lies in an archive: have it restored, then read it."""


class Unsupported(StoreError):
    """This store cannot do that at all (see its Capabilities): do without."""


class NoSpace(StoreError):
    """The medium is full: free some space and try again."""


class Throttled(StoreError):
    """The store asks to slow down: wait, then repeat."""


class Unavailable(StoreError):
    """The store does not answer, or not usefully: repeat later."""


class TimedOut(StoreError):
    """No answer within the time allowed: repeat later."""


class OutcomeUnknown(StoreError):
    """The reply to a mutation was lost: look (commit id) before repeating it."""


class Corrupt(StoreError):
    """Stored data is damaged: do not use it, run check or scrub."""


class NewerFormat(StoreError):
    """A newer version of the program wrote this folder: upgrade."""


class Busy(StoreError):
    """Somebody else does this very thing: wait for them."""


# -- what POSIX semantics say --------------------------------------------------------------


class FsError(S3MountError):
    """Base of what the file system says."""


class NoEntry(FsError):
    """No such name, or no such inode any more."""


class Exists(FsError):
    """The name is taken."""


class NotADirectory(FsError):
    """A directory was needed."""


class IsADirectory(FsError):
    """Anything but a directory was needed."""


class NotEmpty(FsError):
    """The directory holds entries."""


class NameTooLong(FsError):
    """A component over 255 bytes, or a key over the store's limit."""


class Invalid(FsError):
    """The arguments make no sense."""


class ReadOnly(FsError):
    """The mount is read-only."""


class NotPermitted(FsError):
    """Only the owner or root may do that, or the store cannot."""


class Forbidden(FsError):
    """The mode bits do not allow it."""


class Stale(FsError):
    """The object was replaced under an open file: open it again."""


class NoAttribute(FsError):
    """No such extended attribute."""


class NotSupported(FsError):
    """The file system does not have this operation."""


class BadHandle(FsError):
    """The descriptor is not open for that."""


class OutOfRange(FsError):
    """The buffer is too small for the answer."""


ERRNO: dict[type[S3MountError], int] = {
    NotFound: errno.ENOENT,
    NoSuchBucket: errno.ENXIO,
    BucketExists: errno.EEXIST,
    BucketNotEmpty: errno.ENOTEMPTY,
    NoSuchUpload: errno.EIO,
    InvalidPart: errno.EIO,
    AlreadyExists: errno.EEXIST,
    PreconditionFailed: errno.ESTALE,
    InvalidName: errno.EINVAL,
    TooLarge: errno.EFBIG,
    AccessDenied: errno.EACCES,
    Misdirected: errno.ENXIO,
    Archived: errno.EIO,
    Unsupported: errno.EOPNOTSUPP,
    NoSpace: errno.ENOSPC,
    Throttled: errno.EIO,
    Unavailable: errno.EIO,
    TimedOut: errno.ETIMEDOUT,
    OutcomeUnknown: errno.EIO,
    Corrupt: errno.EIO,
    NewerFormat: errno.EIO,
    Busy: errno.EBUSY,
    UsageError: errno.EINVAL,
    NoEntry: errno.ENOENT,
    Exists: errno.EEXIST,
    NotADirectory: errno.ENOTDIR,
    IsADirectory: errno.EISDIR,
    NotEmpty: errno.ENOTEMPTY,
    NameTooLong: errno.ENAMETOOLONG,
    Invalid: errno.EINVAL,
    ReadOnly: errno.EROFS,
    NotPermitted: errno.EPERM,
    Forbidden: errno.EACCES,
    Stale: errno.ESTALE,
    NoAttribute: errno.ENODATA,
    NotSupported: errno.EOPNOTSUPP,
    BadHandle: errno.EBADF,
    OutOfRange: errno.ERANGE,
}

# What the operating system says while it works for us and what that means to our caller; the rest is EIO.
FROM_OS: dict[int, type[StoreError]] = {errno.ENOSPC: NoSpace, errno.EDQUOT: NoSpace, errno.EACCES: AccessDenied, errno.EROFS: AccessDenied}


def errno_of(error: BaseException) -> int | None:
    """The errno for *error*, by its nearest named class; None for what no table names (a defect: log it, answer EIO)."""
    for kind in type(error).__mro__:
        if kind in ERRNO:
            return ERRNO[kind]
    if isinstance(error, OSError) and error.errno in FROM_OS:
        return error.errno
    return None
