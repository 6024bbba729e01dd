"""Run one plan against one live graph, and record its history. This package does not know about Hypothesis."""
