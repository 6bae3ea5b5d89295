"""What changed: between two tables, and between a version and the data it was registered from."""
