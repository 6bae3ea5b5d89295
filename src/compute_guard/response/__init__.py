"""The response ladder: what to do about an incident, cleared by policy, carried out and undone."""
