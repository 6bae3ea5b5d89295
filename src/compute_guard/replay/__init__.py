"""What-if replays: a trace under other quotas, by the cycle that also admits."""
