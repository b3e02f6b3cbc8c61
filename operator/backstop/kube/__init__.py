"""The Kubernetes API as the operator uses it: raw objects, few verbs, few errors. The only importer of the `kubernetes` package."""
