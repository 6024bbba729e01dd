"""The agent on a node of the cluster, and how the harness reaches it."""
