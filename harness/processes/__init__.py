"""The target that launches its graph as local processes: starts, watches, signals and ends them."""
