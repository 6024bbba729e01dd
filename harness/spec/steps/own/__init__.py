"""Steps of the user's own, which the graph file defines."""
