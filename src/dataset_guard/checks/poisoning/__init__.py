"""Checks for poisoning: rows somebody planted or mislabelled."""
