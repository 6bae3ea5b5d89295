"""dataset_guard."""
