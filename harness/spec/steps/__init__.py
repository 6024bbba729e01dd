"""The kinds of steps. Each kind has its own file, in a folder for its sort. `kind` has their base class, `table` has the list of them."""
