"""Turns violations that no case explains into findings, and saves each finding as a case."""
