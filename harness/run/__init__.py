"""Run one plan against one graph, and reuse the graph for later runs. The scenarios of Dynamo's fault tolerance suite are plans, too."""
