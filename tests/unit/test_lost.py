"""Ranges that could not be kept, against a set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3mount.errors import NoSpace
from s3mount.fs.lost import Lost

SPOT = st.integers(0, 30)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "rewritten", "cut"]), SPOT, SPOT), max_size=12)


@given(STEPS)
def test_it_knows_which_bytes_are_lost(steps: list[tuple[str, int, int]]) -> None:
    lost, model = Lost(), set[int]()
    for name, one, other in steps:
        start, stop = sorted((one, other))
        match name:
            case "add":
                lost.add(start, stop, NoSpace("Full."))
                model |= set(range(start, stop))
            case "rewritten":
                lost.rewritten(start, stop)
                model -= set(range(start, stop))
            case "cut":
                lost.cut(one)
                model = {spot for spot in model if spot < one}
        lost.check()
        assert bool(lost) == bool(model)
    if not model:
        lost.require_none()
        return
    with pytest.raises(NoSpace, match=rf"Full\. Of what was written before, {len(model)} bytes are lost"):
        lost.require_none()
