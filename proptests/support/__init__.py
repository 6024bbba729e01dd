"""Builders, toys and simulated graphs for the tests and the benchmarks."""
