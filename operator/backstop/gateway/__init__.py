"""The fallback gateway: an OpenAI-compatible proxy that serves one revision, enforces its chain, and splits traffic at the entry."""
