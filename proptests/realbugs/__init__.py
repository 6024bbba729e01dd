"""Real bugs of real systems as a benchmark: `tox -e realbugs`."""
