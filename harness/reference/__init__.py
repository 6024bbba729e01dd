"""A small but real disaggregated serving graph, whose every right answer is known: what Graphquake is tried out on."""
