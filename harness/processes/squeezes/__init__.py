"""Squeezes of a launched graph: each takes a resource from one replica, proves it, and gives it back."""
