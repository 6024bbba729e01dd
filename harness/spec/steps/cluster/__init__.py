"""Steps that act on the objects of a cluster."""
