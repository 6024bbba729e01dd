"""Shrink a failing plan to a minimal plan."""
