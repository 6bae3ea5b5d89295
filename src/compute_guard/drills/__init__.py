"""Drills: made-up incidents on canary tenants, now or by the calendar."""
