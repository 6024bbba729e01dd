"""Promises about what clients see."""
