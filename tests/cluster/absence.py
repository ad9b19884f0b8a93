"""What becomes of a test that needs a cluster where there is none."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """Skipped for a user; failed in CI, unless CI does without by choice."""
    if os.environ.get("CI") == "true" and os.environ.get("COALMINE_CLUSTER") != "none":
        pytest.fail(f"no cluster: {reason}", pytrace=False)
    pytest.skip(f"no cluster: {reason}")
