"""The one error of this package that is meant for the person at the terminal."""

from __future__ import annotations


class ClusterProblem(Exception):  # noqa: N818 - what is missing on a machine is no error of the program
    """Something is missing or failed; each line of the message says what it is and what to do."""
