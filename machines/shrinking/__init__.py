"""Shrinking a failing plan to a minimal one."""
