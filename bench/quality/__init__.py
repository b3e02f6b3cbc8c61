"""What judging an answer costs a gateway."""
