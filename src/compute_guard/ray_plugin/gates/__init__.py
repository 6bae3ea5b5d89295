"""Gateways in front of Ray's two control protocols: the GCS, and each node's raylet.

A gate is a gRPC server that takes calls as raw bytes, looks at those that need a decision, and passes the
rest on unread. Message types come from the installed Ray (``ray.core.generated``). What a gate cannot judge
it refuses.

* :mod:`.head` is the process beside the GCS: the GCS gateway, and the lease book all nodes draw on.
* :mod:`.node` is the process beside each raylet: the lease gateway.
* :mod:`.launcher` starts every worker of a node, as its tenant.
"""
