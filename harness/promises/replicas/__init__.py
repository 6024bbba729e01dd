"""Promises about the replicas and their processes."""
