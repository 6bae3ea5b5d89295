"""Verified reads: the door every read goes through, and the check of what comes out of it."""
