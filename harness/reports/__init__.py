"""Text and tables that are computed from histories."""
