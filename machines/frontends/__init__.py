"""The pytest plugins and the command line."""
