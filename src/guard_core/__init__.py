"""The small shared kernel of TrainGuard.

``guard_core`` holds only what both guards use today: errors, configuration,
identity, findings, the policy engine, the audit log, attestations, storage and
the command line's root. It imports neither ``dataset_guard`` nor
``compute_guard``, and neither ray, mlflow nor great_expectations.

The one object most callers need is :class:`guard_core.home.Home`: a
``TRAINGUARD_HOME`` that has been opened, with its storage, audit log,
credentials and policy engine.
"""

from guard_core.version import __version__

__all__ = ["__version__"]
