"""Steps that send requests."""
