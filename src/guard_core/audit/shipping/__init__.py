"""Delivering audit records to a collector or a file, from a process of its own that only reads the log."""
