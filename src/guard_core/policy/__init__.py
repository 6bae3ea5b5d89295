"""Policy: Rego decisions, the same answer embedded or on an OPA server."""
