"""The groups of ``trainguard dataset`` and what they print."""
