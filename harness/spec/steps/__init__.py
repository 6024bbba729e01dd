"""The kinds of steps, a file each. `kind` describes a kind, and `table` lists all of them."""
