"""Steps, all at once."""

from typing import TypeVar

from backstop.gateway.quality.written import Steps

Result = TypeVar("Result")


def taken(steps: Steps[Result]) -> Result:
    """What they come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
