"""The target that launches a graph as local processes. It starts, watches and ends these processes, and sends them signals."""
