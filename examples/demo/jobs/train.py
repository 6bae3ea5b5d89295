"""A tenant's training job: reads a registered dataset through the verified reader, trains, logs to MLflow.

Submitted with Ray's own job client. Nothing here knows more of TrainGuard than the two lines that read the
data and log it as the run's input.
"""

from __future__ import annotations

import argparse

import mlflow
import numpy as np
import ray
from sklearn.linear_model import LogisticRegression

import dataset_guard
from dataset_guard.integrations import mlflow_data

parser = argparse.ArgumentParser()
parser.add_argument("--dataset", required=True)
parser.add_argument("--tracking-uri", required=True)
arguments = parser.parse_args()

ray.init(logging_level="warning")
mlflow.set_tracking_uri(arguments.tracking_uri)
mlflow.set_experiment("digits")
with mlflow.start_run(run_name="train on " + arguments.dataset) as run:
    table = dataset_guard.ray_data.read(arguments.dataset).to_pandas()
    mlflow_data.log_input(arguments.dataset, context="training")
    x, y = table.drop(columns=["label"]).to_numpy(dtype=float), table["label"].to_numpy()
    held_out = np.arange(len(y)) % 5 == 0
    model = LogisticRegression(max_iter=200).fit(x[~held_out], y[~held_out])
    accuracy = float(model.score(x[held_out], y[held_out]))
    mlflow.log_metric("held_out_accuracy", accuracy)
print(f"trained on {len(y)} verified rows, held-out accuracy {accuracy:.3f}, MLflow run {run.info.run_id}")
