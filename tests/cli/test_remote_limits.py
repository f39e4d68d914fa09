"""How a mount shares out its connections to a remote store."""

from __future__ import annotations

from s3mount.cli.remote import LIMITS
from s3mount.fs.width import MOST
from s3mount.store.s3.options import S3Options


def test_small_files_are_stored_beside_the_parts_of_large_ones() -> None:
    assert LIMITS.commit - MOST >= 16


def test_names_are_looked_up_while_all_that_moves_bytes_is_under_way() -> None:
    assert S3Options().connections - LIMITS.commit - LIMITS.read >= 8
