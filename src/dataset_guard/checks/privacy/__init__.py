"""Checks for privacy: what must not leave with the data."""
