"""The rollout engine: pure decisions. No I/O, no clock, no randomness; `controller` observes for it and applies its plans."""
