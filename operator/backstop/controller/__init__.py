"""The operator's wiring: sources → store → queue → observe, decide, apply. The only importer of `kopf`."""
