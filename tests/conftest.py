"""What every test gets: fixed seeds, folders of its own, a look at the log, and one line that says why nothing was mounted.

Owns: the hypothesis profiles, the rule that an unexpected warning in the log fails the test, the skip of tests marked `fuse`, what the
garbage collector need not look at.
Must not know: any part of s3mount but the name of its log.

A test that looks at the log itself (fixture `caplog`) or announces what it provokes (fixture `expect_logs`) is its own judge:

    def test_...(expect_logs):
        expect_logs("tail of the log was cut")
"""

from __future__ import annotations

import gc
import logging
import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.leftovers import ended_in_time, forget_mounts, settle_in

ExpectLogs = Callable[..., None]

# "ci": the same examples on each run, so that a failure is the change's; "fast": the first of them; "soak": new ones, many.
settings.register_profile(
    "ci", derandomize=True, deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fast", settings.get_profile("ci"), max_examples=30)
settings.register_profile("soak", max_examples=5000, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
settings.load_profile("ci")


# -- the user's folders ---------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        settle_in(tmp_path_factory.mktemp("home"), patch)
        yield
        forget_mounts(tmp_path_factory.getbasetemp())


# -- memory ---------------------------------------------------------------------------------


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Modules and eight thousand tests stay to the end: walking through them in each collection took a fifth of the fast tests' time."""
    gc.collect()
    gc.freeze()


# -- soaks ----------------------------------------------------------------------------------


def pytest_exception_interact(node: pytest.Item | pytest.Collector, report: pytest.TestReport | pytest.CollectReport) -> None:
    """A soak takes an hour, and may not live to tell what failed in its midst: it is said at once."""
    reporter = node.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and node.config.getoption("--hypothesis-profile") == "soak":
        reporter.write_line(f"\n{report.nodeid}\n{report.longrepr}")


# -- the log --------------------------------------------------------------------------------


class Alarms(logging.Handler):
    """Keeps what is WARNING or worse and matches none of `expected`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.expected: list[re.Pattern[str]] = []
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def unexpected(self) -> list[str]:
        lines = [f"{record.levelname} {record.name}: {record.getMessage()}" for record in self.records]
        return [line for line in lines if not any(pattern.search(line) for pattern in self.expected)]


ALARMS = pytest.StashKey[Alarms]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that passed and yet logged a warning or an error that it did not announce.

    A program that ran within the test may have set up the log as it likes; the next test finds it as it was.
    """
    alarms = item.stash.setdefault(ALARMS, Alarms())
    ours = logging.getLogger("s3mount")
    before = (ours.level, ours.propagate, list(ours.handlers))
    logging.getLogger().addHandler(alarms)
    try:
        result = yield
    finally:
        logging.getLogger().removeHandler(alarms)
        ours.level, ours.propagate, ours.handlers[:] = before
    if alarms.unexpected() and "caplog" not in getattr(item, "fixturenames", ()):
        pytest.fail("unexpected in the log:\n" + "\n".join(alarms.unexpected()), pytrace=False)
    return result


@pytest.fixture
def expect_logs(request: pytest.FixtureRequest) -> ExpectLogs:
    """Call it with regular expressions for the warnings and errors that the test provokes."""
    alarms = request.node.stash.setdefault(ALARMS, Alarms())

    def expect(*patterns: str) -> None:
        alarms.expected += [re.compile(pattern) for pattern in patterns]

    return expect


# -- mounts ---------------------------------------------------------------------------------


def why_no_mounts() -> str | None:
    """The reason, as half a sentence, why nothing can be mounted here; None where it can."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not open to this user (as root: chmod 666 /dev/fuse)"
    if shutil.which("fusermount3") is None:
        return "there is no fusermount3 (package fuse3)"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A mount that hangs is killed, so that whoever waits for it gets an error."""
    if not item.get_closest_marker("fuse"):
        return (yield)
    with ended_in_time(item):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Said test by test, and counted from the reports: with `-n` the process that sums up has collected nothing itself."""
    reason = why_no_mounts() if item.get_closest_marker("fuse") else None
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and nothing can be mounted: {reason}", pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reason = why_no_mounts()
    reports = terminalreporter.stats.get("skipped", ())
    if reason and (skipped := sum(reason in str(report.longrepr) for report in reports)):
        terminalreporter.write_line(f"{skipped} mount tests skipped: {reason}")
