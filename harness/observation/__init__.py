"""Reading a live graph without changing it: HTTP probes, listings, metrics, resource usage."""
