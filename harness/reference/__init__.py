"""A small but real disaggregated serving graph, whose right answers are all known. Graphquake is tested on it."""
