"""A scan: one pass over the rows for every check, on one core, several, or Ray."""
