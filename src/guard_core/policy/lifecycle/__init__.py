"""How a policy change reaches a live cluster: signed bundles, replay, staging, promotion, rollback.

(Being written by the life-cycle worker, not by the policy worker: bundles/signing, replay, stage, promote,
rollback, approvals, break-glass, hot reload.)
"""
