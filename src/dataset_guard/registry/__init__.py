"""Registered versions: their names, records, aliases, lineage, waivers, sharing and end."""
