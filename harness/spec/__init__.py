"""The user's input: graph files, plans, load and bounds, checked and typed."""
