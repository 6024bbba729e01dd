"""Drawing plans: the state machine, its model of the graph, and the choice of plans that are worth a run."""
