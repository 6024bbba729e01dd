"""The target that reaches a graph in a Kubernetes cluster. It talks to the API server, and asks the cluster for every change."""
