"""Other work on the machine: it is detected during a run, and a run that it disturbed is repeated."""
