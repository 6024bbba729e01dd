"""The commands of `graphquake` that have a file of their own."""
