"""Slots on the nodes of a Ray cluster: each is an actor that runs whole plans there, and sends the folders of the runs back."""
