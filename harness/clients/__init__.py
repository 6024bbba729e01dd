"""The load generator: clients, prompts, and the classification of answers."""
