"""For all tests."""

import asyncio
import os

import pytest

from coalmine_sidecar.relay import exchange

# On Python 3.11 to 3.13 pytest-asyncio asks for the present event loop before it sets its own: unless one was set,
# that makes one which nobody closes, and its ResourceWarning hits whatever test the collector runs in.
asyncio.set_event_loop(None)

#: The sidecar is as in its image: see `tests.compiled`.
COMPILED = (exchange.__file__ or "").endswith(".so")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if bool(os.environ.get("COALMINE_COMPILED")) != COMPILED:
        raise pytest.UsageError(f"COALMINE_COMPILED and the sidecar's modules disagree: {exchange.__file__}")
    for item in items if COMPILED else ():
        if item.get_closest_marker("looks_inside"):
            item.add_marker(pytest.mark.skip(reason="nothing can be put into a compiled module, or inherit from it"))
