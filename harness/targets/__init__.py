"""The seam between a run and its graph: the protocol, and the one place that makes a target."""
