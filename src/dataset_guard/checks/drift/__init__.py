"""Checks for drift: the new rows against the trusted ones."""
