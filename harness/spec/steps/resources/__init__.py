"""Steps that take resources from a replica: CPU, memory, file descriptors, disk, GPU."""
