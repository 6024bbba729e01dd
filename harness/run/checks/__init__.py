"""The checks of the protocol of a target."""
