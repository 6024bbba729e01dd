"""The protocol between a run and its graph. See `target` for how to write a target."""
