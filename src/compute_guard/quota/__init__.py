"""Quotas in Kueue's words: what a queue may use in its tree of cohorts, in integers."""
