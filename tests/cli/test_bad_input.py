"""Bad input gets one sentence on stderr and status 2 (the request is wrong) or 1 (it could not be done); never a traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import trio

from s3mount.cli.main import COMMANDS, load, run
from s3mount.cli.report import only_cause, report, sentence
from s3mount.errors import NotFound, UsageError
from tests.cli.conftest import Command, Outcome

TABLE = [
    # words, status, key words of the sentence
    (["ls", "local://missing"], 1, ["no bucket 'missing'", "`s3mount mb local://missing`"]),
    (["cp", "file", "local://missing/key"], 1, ["`s3mount mb local://missing`"]),
    (["rb", "local://missing"], 1, ["no bucket 'missing'"]),
    (["mb", "local://bucket"], 1, ["'bucket'", "already"]),
    (["mb", "local://Bucket"], 2, ["'Bucket'", "lower-case"]),
    (["mb", "local://ab"], 2, ["'ab'", "3 to 63"]),
    (["mb", "local://a..b"], 2, ["two dots"]),
    (["mb", "local://192.168.1.1"], 2, ["IP address"]),
    (["mb", "local://"], 2, ["names no bucket"]),
    (["mb", "local://bucket/key"], 2, ["names a key, not a bucket"]),
    (["mb", "bucket"], 2, ["local:// or s3://"]),
    (["ls", "--endpoint-url", "nonsense", "s3://bucket"], 2, ["'nonsense' is no endpoint"]),
    (["ls", "--connect-timeout", "0", "s3://bucket"], 2, ["time-out"]),
    (["ls", "--addressing", "sideways", "s3://bucket"], 2, ["--addressing"]),
    (["mb", "s3://bucket/key"], 2, ["names a key, not a bucket"]),
    (["ls", "gs://bucket"], 2, ["'gs://bucket'", "local:// or s3://"]),
    (["cp", "file", "http://host/key"], 2, ["local:// or s3://"]),
    (["cp", "file", "local://bucket/" + "k" * 5000], 2, ["5000 bytes", "4096 is the limit"]),
    (["cp", "file", "local://bucket/\udcff"], 2, ["not valid UTF-8"]),
    (["cp", "nothing", "local://bucket/key"], 1, ["nothing: no such file or directory"]),
    (["cp", ".", "local://bucket"], 2, ["is a directory", "-r"]),
    (["cp", "file", "other"], 2, ["in a store", "local://BUCKET/KEY"]),
    (["cp", "-", "local://bucket"], 2, ["Standard input has no name"]),
    (["cp", "local://bucket/key", "no/such/"], 1, ["nothing at local://bucket/key"]),
    (["cp", "local://bucket/key"], 2, ["Missing argument"]),
    (["mv", "-", "local://bucket/key"], 2, ["standard input"]),
    (["mv", "local://bucket/key", "local://bucket/other"], 1, ["nothing at local://bucket/key"]),
    (["cat", "local://bucket"], 2, ["names a bucket, not an object"]),
    (["cat", "local://bucket/key"], 1, ["'key'"]),
    (["stat", "local://bucket/key"], 1, ["nothing at local://bucket/key"]),
    (["rm", "local://bucket"], 2, ["names a bucket"]),
    (["rm", "local://bucket/key"], 1, ["nothing at local://bucket/key"]),
    (["du"], 2, ["Missing argument"]),
    (["frobnicate"], 2, ["No such command 'frobnicate'"]),
    (["ls", "--frobnicate"], 2, ["--frobnicate", "s3mount ls --help"]),
    (["--frobnicate"], 2, ["--frobnicate", "s3mount --help"]),
    (["--log-level", "loud", "ls"], 2, ["'loud'"]),
    (["store", "sweep", "--grace", "soon"], 2, ["'soon' is no duration"]),
    (["mount", "local://bucket"], 2, ["Missing argument"]),
    (["mount", "gs://bucket", "."], 2, ["local:// or s3://"]),
    (["mount", "local://bucket", ".", "-o", "shiny"], 2, ["Unknown mount option: shiny"]),
    (["mount", "local://bucket", ".", "-o", "uid=me"], 2, ["'me'"]),
    (["umount", "."], 2, ["Nothing is mounted"]),
]


def said(outcome: Outcome) -> str:
    """The one sentence, after making sure that there is no more."""
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("s3mount: ")
    assert "Traceback" not in outcome.err
    assert outcome.out == b""
    return lines[0].removeprefix("s3mount: ")


@pytest.mark.parametrize(("words", "status", "key_words"), TABLE, ids=[" ".join(words)[:60] for words, _, _ in TABLE])
def test_bad_input_gets_one_sentence(
    s3mount: Command, bucket: str, here: Path, words: list[str], status: int, key_words: list[str]
) -> None:
    (here / "file").touch()
    outcome = s3mount(*words)
    told = said(outcome)
    assert outcome.status == status, told
    for key_word in key_words:
        assert key_word in told


def test_the_command_that_makes_the_bucket_names_the_folder_that_was_meant(s3mount: Command, tmp_path: Path) -> None:
    outcome = s3mount("ls", "local://bucket", "--data", tmp_path / "other")
    assert f"`s3mount mb local://bucket --data {tmp_path / 'other'}`" in said(outcome)


def test_a_prefix_is_not_copied_into_itself(s3mount: Command, bucket: str) -> None:
    s3mount("cp", "-", f"{bucket}/a/b", stdin=b"x")
    for command in (["cp", "-r"], ["mv"]):
        outcome = s3mount(*command, f"{bucket}/a", f"{bucket}/a/c")
        assert outcome.status == 2
        assert "into itself" in said(outcome)


def test_a_folder_with_other_files_is_left_alone(s3mount: Command, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    outcome = s3mount("mb", "local://bucket", "--data", tmp_path)
    assert outcome.status == 1
    assert str(tmp_path) in said(outcome)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.jpg"]


def test_a_data_folder_that_is_a_file_is_refused(s3mount: Command, here: Path) -> None:
    (here / "file").touch()
    assert "is a file" in said(s3mount("mb", "local://bucket", "--data", "file"))


def test_a_data_folder_below_a_file_is_refused(s3mount: Command, here: Path) -> None:
    (here / "file").touch()
    outcome = s3mount("mb", "local://bucket", "--data", "file/data")
    assert outcome.status == 1
    assert f"{here}/file/data" in said(outcome)


def test_a_data_folder_of_a_newer_format_is_refused(s3mount: Command, bucket: str, data: Path) -> None:
    written = json.loads((data / "format").read_text())
    (data / "format").write_text(json.dumps(written | {"format": 99}))
    outcome = s3mount("ls")
    assert outcome.status == 1
    assert "format 99" in said(outcome)
    assert "upgrade" in outcome.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_data_folder_is_named(s3mount: Command, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    outcome = s3mount("mb", "local://bucket", "--data", locked / "data")
    assert outcome.status == 1
    assert str(locked) in said(outcome)
    assert "ermission denied" in outcome.err


@pytest.mark.slow
def test_a_full_medium_is_one_sentence(s3mount: Command, bucket: str, data: Path, here: Path) -> None:
    """A limit on the size of files stands in for a full disk: both come as an error of write(2)."""
    (here / "big").write_bytes(bytes(range(256)) * 40_000)
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000));"
        "from s3mount.cli.main import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "cp", "big", "local://bucket/key"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("s3mount: ")
    assert str(data / "staging") in done.stderr
    assert done.stderr.count("\n") == 1
    assert s3mount("ls", bucket).lines == []


# -- the one place ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (NotFound("There is no object 'x'."), 1, "There is no object 'x'."),
        (UsageError("Say which."), 2, "Say which."),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 1, "/data/x: no space left on the device"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), 1, "a -> b: invalid cross-device link"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (click.UsageError("No."), 2, "No."),
        (MemoryError(), 1, "not enough memory"),
        (UsageError("two\nlines"), 2, "two lines"),
        (ExceptionGroup("", [ExceptionGroup("", [NotFound("Inside.")])]), 1, "Inside."),
        (ExceptionGroup("", [ValueError("defect"), NotFound("Answer.")]), 1, "Answer."),
        (BaseExceptionGroup("", [trio.Cancelled._create(), KeyboardInterrupt()]), 1, "interrupted"),
    ],
)
def test_every_failure_has_a_sentence_and_a_status(
    error: BaseException, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == status
    assert capsys.readouterr().err == f"s3mount: {text}\n"


def test_a_defect_says_how_to_see_more() -> None:
    told = sentence(ZeroDivisionError("division by zero"))
    assert "ZeroDivisionError" in told
    assert "--log-level debug" in told


def test_a_traceback_comes_with_log_level_debug_only(s3mount: Command) -> None:
    outcome = s3mount("--log-level", "debug", "cat", "local://bucket")
    assert outcome.status == 2
    assert "Traceback" in outcome.err
    assert "Traceback" not in s3mount("cat", "local://bucket").err


def test_one_cause_is_found_in_a_group() -> None:
    cause = NotFound("x")
    assert only_cause(ExceptionGroup("", [ExceptionGroup("", [cause])])) is cause


# -- help ---------------------------------------------------------------------------------


def command_named(name: str) -> click.Command:
    first, *rest = name.split()
    command = load(first)
    for word in rest:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command


@pytest.mark.parametrize("name", [*COMMANDS, "store check", "store sweep", "store scrub", "store rebuild"])
def test_every_command_and_every_option_has_help(name: str) -> None:
    command = command_named(name)
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_the_command_says(name: str) -> None:
    assert load(name).help is not None
    assert (load(name).help or "").splitlines()[0] == COMMANDS[name][1]


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["ls", "--help"], ["store", "--help"], ["store", "check", "-h"], ["--version"]])
def test_help_and_version_succeed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    assert capsys.readouterr().out


# -- the real program ---------------------------------------------------------------------


def program(*words: str, data: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "s3mount", *words],
        input=stdin,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "S3MOUNT_DATA": str(data)},
        check=False,
        timeout=60,
    )


@pytest.mark.slow
def test_the_program_does_what_the_function_does(data: Path) -> None:
    assert program("mb", "local://bucket", data=data).returncode == 0
    assert program("cp", "-", "local://bucket/key", data=data, stdin=b"bytes\0\xff").returncode == 0
    assert program("cat", "local://bucket/key", data=data).stdout == b"bytes\0\xff"
    missing = program("cat", "local://bucket/other", data=data)
    assert missing.returncode == 1
    assert missing.stderr.count(b"\n") == 1
    assert b"Traceback" not in missing.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error_worth_a_word(data: Path) -> None:
    program("mb", "local://bucket", data=data)
    program("cp", "-", "local://bucket/key", data=data, stdin=bytes(4_000_000))
    done = subprocess.run(
        f"{sys.executable} -m s3mount cat local://bucket/key | head -c 10",
        shell=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "S3MOUNT_DATA": str(data)},
        check=True,
        timeout=60,
    )
    assert done.stdout == bytes(10)
    assert done.stderr == b""


def test_the_overview_imports_none_of_the_heavy_modules() -> None:
    script = (
        "import sys\nfrom s3mount.cli.main import run\nrun(['--help'])\n"
        "print(*[name for name in ('trio', 'pyfuse3', 'sqlite3', 'aiobotocore') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert done.stderr.strip() == ""
