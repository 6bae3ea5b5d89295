"""The TrainGuard token as a header of MLflow's client, for servers whose own login uses ``Authorization``.

MLflow's client has one ``Authorization`` header: behind basic-auth it holds that user name and password, so
the token travels as ``X-TrainGuard-Token``. MLflow asks this provider for every request to whatever server
the tracking URI names, so the token is sent only where ``TRAINGUARD_MLFLOW_TOKEN`` says so on purpose.
"""

from __future__ import annotations

import os

from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from dataset_guard.integrations.mlflow_gate import TOKEN_HEADER

VARIABLE = "TRAINGUARD_MLFLOW_TOKEN"


class TrainGuardHeader(RequestHeaderProvider):  # type: ignore[misc]
    """Adds ``X-TrainGuard-Token`` when ``TRAINGUARD_MLFLOW_TOKEN`` is set."""

    def in_context(self) -> bool:
        """Whether there is a token meant for MLflow's server."""
        return bool(os.environ.get(VARIABLE))

    def request_headers(self) -> dict[str, str]:
        """The one header."""
        return {TOKEN_HEADER: os.environ[VARIABLE].strip()}
