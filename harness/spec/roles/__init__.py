"""The keys of a role: its commands, or the pods that are its replicas."""
