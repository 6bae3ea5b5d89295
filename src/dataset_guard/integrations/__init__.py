"""Where ``dataset_guard`` plugs into other tools. Each module imports its tool inside functions, or is
imported by that tool; importing this package imports none of them.
"""
