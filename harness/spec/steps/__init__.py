"""The kinds of steps. Each kind has its own file. `kind` has the base class of all kinds, and `table` has the list of all kinds."""
