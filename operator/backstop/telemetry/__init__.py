"""What the operator shows of itself: metrics, health, one log line per transition."""
