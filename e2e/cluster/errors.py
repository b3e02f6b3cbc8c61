"""The one error of this package that is meant for the person at the terminal."""

from __future__ import annotations


class ClusterError(Exception):
    """Something is missing or failed; each line of the message says what it is and what to do."""
