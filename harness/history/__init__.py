"""The record of a run: its events, its requests, and both on disk."""
