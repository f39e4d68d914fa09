"""The conformance suite: what every object store, and every wrapper around one, promises (the contract in s3mount/store/api.py).

Plain functions that take a store; this module gathers them. A store's test module applies all of `CHECKS` to it:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    async def test_conformance(check, store):
        await apply(check, store)
"""

from tests.store import (
    check_aspects,
    check_contents,
    check_listing,
    check_names,
    check_objects,
    check_replies,
    check_uploads,
    check_verbatim,
)
from tests.store.registry import CHECKS, Check, apply, lacking

GATHERED = (check_objects, check_listing, check_contents, check_names, check_uploads, check_replies, check_aspects, check_verbatim)

__all__ = ["CHECKS", "GATHERED", "Check", "apply", "lacking"]
