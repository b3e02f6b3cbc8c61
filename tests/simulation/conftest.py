"""A machine that is told step by step is not torn down: what it does to logs ends with its test all the same."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _logs_are_kept_again() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)
