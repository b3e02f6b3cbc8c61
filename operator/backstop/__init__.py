"""Backstop: canaries and automatic rollback for prompts and LLM fallback chains."""
