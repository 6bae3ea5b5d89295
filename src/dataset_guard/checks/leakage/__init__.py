"""Checks for leakage: rows that should not be where they are."""
