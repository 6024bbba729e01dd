"""The cases of the ready-made graphs, one JSON file each."""
