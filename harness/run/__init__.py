"""One run: the phases, the steps of the plan, reuse of a graph, and the suite's scenarios."""
