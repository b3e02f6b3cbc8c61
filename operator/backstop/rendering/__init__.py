"""PURE: from a revision and its policy to the objects of the cluster, as the API server's JSON. Reads nothing, decides nothing."""
