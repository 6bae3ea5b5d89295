"""Incidents: from observations to evidence, pages and notices."""
