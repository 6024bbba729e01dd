"""Benchmarks; run from `proptests/`, e.g. `python -m bench.bench_shrink`."""
