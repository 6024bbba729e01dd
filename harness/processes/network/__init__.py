"""Network namespaces of a launched graph, and the faults of its network. A child of the guard holds them."""
