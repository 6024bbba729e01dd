"""Live runs within a budget, on as many graphs as there are slots, and the log of them."""
