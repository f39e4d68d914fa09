"""What of a content is committed, step by step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import NoSpace, Stale
from s3mount.fs.commit_state import CREATED, FOUND, CommitState, Done, Edited, Emptied, Event, Failed, Frozen, Phase, step

FULL = NoSpace("The disk is full.")


def after(state: CommitState, *events: Event) -> CommitState:
    for event in events:
        state = step(state, event)
        state.check()
    return state


@pytest.mark.parametrize(
    ("state", "events", "phase"),
    [
        (FOUND, [], Phase.CLEAN),
        (CREATED, [], Phase.UNTOUCHED),
        (FOUND, [Emptied()], Phase.UNTOUCHED),
        (FOUND, [Emptied(), Edited()], Phase.CHANGED),
        (FOUND, [Edited(), Emptied()], Phase.UNTOUCHED),
        (CREATED, [Edited()], Phase.CHANGED),
        (FOUND, [Edited(), Frozen()], Phase.SENDING),
        (FOUND, [Edited(), Frozen(), Edited()], Phase.OVERTAKEN),
        (FOUND, [Edited(), Frozen(), Done(1)], Phase.CLEAN),
        (FOUND, [Edited(), Frozen(), Edited(), Done(1)], Phase.CHANGED),
        (FOUND, [Edited(), Frozen(), Emptied(), Done(1)], Phase.UNTOUCHED),
        (FOUND, [Edited(), Frozen(), Failed(FULL)], Phase.FAILED),
        (FOUND, [Edited(), Frozen(), Failed(None)], Phase.CHANGED),
        (CREATED, [Frozen(), Failed(None)], Phase.UNTOUCHED),
        (CREATED, [Frozen(), Done(1)], Phase.CLEAN),
    ],
)
def test_the_phase_follows_from_what_happened(state: CommitState, events: list[Event], phase: Phase) -> None:
    assert after(state, *events).phase is phase


def test_an_error_stays_until_a_commit_succeeds() -> None:
    failed = after(FOUND, Edited(), Frozen(), Failed(FULL))
    assert failed.error is FULL
    assert after(failed, Edited()).error is FULL
    assert after(failed, Frozen(), Failed(None)).error is FULL
    stale = Stale("Replaced.")
    assert after(failed, Frozen(), Failed(stale)).error is stale
    assert after(failed, Frozen(), Done(1)).error is None


def test_a_commit_found_out_later_leaves_only_what_came_since() -> None:
    lost = after(FOUND, Edited(), Frozen(), Failed(FULL), Edited())
    assert after(lost, Done(1)).changed
    assert not after(lost, Done(2)).changed


def test_emptying_overwrites_until_it_is_committed() -> None:
    emptied = after(FOUND, Emptied(), Edited())
    assert emptied.overwrites
    assert after(emptied, Frozen(), Failed(FULL)).overwrites
    assert not after(emptied, Frozen(), Edited(), Done(2)).overwrites
    assert after(emptied, Frozen(), Emptied(), Done(2)).overwrites


@pytest.mark.parametrize("event", [Done(1), Failed(None)])
def test_what_cannot_happen_is_refused(event: Event) -> None:
    with pytest.raises(AssertionError):
        step(FOUND, event)


def test_two_commits_at_once_are_refused() -> None:
    with pytest.raises(AssertionError):
        step(after(FOUND, Edited(), Frozen()), Frozen())


@given(st.booleans(), st.lists(st.sampled_from(["edit", "empty", "commit", "fail", "done"]), max_size=20))
def test_changed_means_that_an_edit_is_not_committed(new: bool, words: list[str]) -> None:
    state = CREATED if new else FOUND
    for word in words:
        match word:
            case "edit":
                state = after(state, Edited())
            case "empty":
                state = after(state, Emptied())
            case "commit" if state.sending is None:
                state = after(state, Frozen())
            case "fail" if state.sending is not None:
                state = after(state, Failed(FULL))
            case "done" if state.sending is not None:
                state = after(state, Done(state.sending))
        assert state.changed == (state.committed < state.edits)
        assert not (state.untouched and not state.changed)
