"""How a policy change reaches a live cluster: signed bundles, replay, stages, promotion, rollback."""
