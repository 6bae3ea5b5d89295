"""Checks for quality: whether the table is what it should be."""
