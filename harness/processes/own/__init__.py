"""The user's own steps: their signals and commands, and the commands that run if the harness dies."""
