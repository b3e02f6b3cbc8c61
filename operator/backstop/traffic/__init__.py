"""The traffic split: what the gateways are told (`shares`), and what they are seen to act on (`acting`)."""
