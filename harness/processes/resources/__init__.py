"""Ports and GPUs of this machine, and which graph has them."""
