"""The Content-Type that a name gets."""

from __future__ import annotations

import pytest

from s3mount.fs.content_types import content_type_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a/b/index.html", "text/html"),
        ("photo.JPG", "image/jpeg"),
        ("notes.md", "text/markdown"),
        ("data.json", "application/json"),
        ("archive.tar.gz", "application/gzip"),
        ("dump.sql.bz2", "application/x-bzip2"),
        ("table.parquet", "application/vnd.apache.parquet"),
        ("script.js.d/README", "application/octet-stream"),
        ("no suffix", "application/octet-stream"),
        (".bashrc", "application/octet-stream"),
        (".gz", "application/octet-stream"),
        ("x.gz", "application/gzip"),
        ("backup.tgz", "application/gzip"),
        ("...html", "application/octet-stream"),
        ("a.html/b", "application/octet-stream"),
        ("ends.", "application/octet-stream"),
        ("data:text/html,x", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_a_name_says_what_it_promises(name: str, kind: str) -> None:
    assert content_type_of(name) == kind
