"""Watching a cluster: the monitor, its metrics and the picture of the moment."""
