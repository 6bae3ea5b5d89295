"""The audit log: what was decided, why, and what happened, in an order that cannot be changed unseen.

Every record holds the hash of the record before it; every append signs a tree head (RFC 6962) over all
records so far. `record` is the line format, `merkle` the tree, `head` the signed tree head, `log` appends
and reads, `verify` proves or disproves, `index` finds a decision fast.

What this detects: any byte changed, any record removed, inserted or moved, a tail cut off, a segment or
the whole folder deleted. What it cannot detect: someone who holds the signing key can rewrite the log and
sign it anew, and someone who puts back an older copy of log and head together turns back time.
Against both, keep signed heads elsewhere (``trainguard audit head``) and give them to
``trainguard audit verify --head``.
"""

from guard_core.audit.log import AuditLog
from guard_core.audit.verify import AuditReport, verify

__all__ = ["AuditLog", "AuditReport", "verify"]
