"""Invariants of the whole pass, with everything that can go wrong between two operators and their API server."""

from hypothesis import HealthCheck, settings

from .machine import WholePasses

TestWholePasses = WholePasses.TestCase
TestWholePasses.settings = settings(max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
