"""The kinds of steps, a file each. `kind` says what a kind is, `table` lists them all."""
