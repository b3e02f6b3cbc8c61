"""Whole-system tests, the demo, and the clusters they run on."""
