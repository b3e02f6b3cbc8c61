"""A fake model server: OpenAI-compatible, with behaviour scripted per prompt text and changeable at run time."""
