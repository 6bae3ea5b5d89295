"""Checks: one module each, found through the entry points ``dataset_guard.checks``. Start at ``base``."""
