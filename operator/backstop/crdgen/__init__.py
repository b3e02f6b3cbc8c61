"""From the pydantic models of `api` to CustomResourceDefinitions. Pure but for `__main__`, which writes the files."""
