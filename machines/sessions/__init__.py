"""The search of one graph, in one process or in several."""
