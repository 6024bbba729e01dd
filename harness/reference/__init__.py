"""The reference graph: a small but real disaggregated serving graph. Its right answers are all known, so it serves to test Graphquake."""
