"""Steps that wait, for a time or until something happens."""
