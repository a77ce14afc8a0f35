"""Settings for every test."""

import os

from hypothesis import settings

# wall-clock deadlines measure the machine, not the code; bounds on work are tests of their own
settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=100, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")

LONGEST_ID = 40
"""Longer texts are mostly keys, tokens and certificates made in this run: as names they would differ for each worker."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name generated material by its argument, so that every worker collects the same tests."""
    generated = isinstance(val, bytes) or (isinstance(val, str) and len(val) > LONGEST_ID)
    return argname if generated else None
