"""Steps that act on the processes of a replica: the faults by signal, and the respawn."""
