"""The steps that disturb the network between replicas, for graphs with network namespaces."""
