"""Reports of rollouts: what is written into a RolloutReport, from a policy's status alone. Pure."""
