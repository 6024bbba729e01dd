"""One live graph, one plan, one history. Knows nothing of Hypothesis."""
