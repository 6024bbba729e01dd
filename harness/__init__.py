"""One live graph, one plan, one history. This package does not know about Hypothesis."""
