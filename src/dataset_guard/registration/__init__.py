"""Registering: a request, one look at the data, the verdict of policy, a signed version."""
