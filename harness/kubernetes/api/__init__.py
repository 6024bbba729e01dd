"""A small client of the Kubernetes API: access, requests, watches, and streams to pods. It knows nothing of graphs."""
