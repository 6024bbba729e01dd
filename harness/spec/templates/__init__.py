"""Texts of a graph file in which words in braces stand for values: ports, addresses, folders and files of a launch."""
