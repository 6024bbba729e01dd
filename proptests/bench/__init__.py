"""Benchmarks. Run one by its name: `tox -e bench -- bench_shrink`, or `python -m bench.bench_shrink` in `proptests/`."""
