"""compute_guard."""
