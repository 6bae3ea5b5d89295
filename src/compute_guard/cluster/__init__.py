"""A guarded Ray cluster: how to start, reach, install and try it."""
