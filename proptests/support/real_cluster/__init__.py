"""Run the tests of the Kubernetes target on a real API server, with the test cluster's kubelet as the node."""
