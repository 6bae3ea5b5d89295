"""Steps 2 to 4: register real data, catch a poisoned update, notice a file changed in place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import dataset_guard
from guard_core.home import Home
from planted import DemoData, change_one_value_in_place
from table import expect

TAMPERED_COLUMN, TAMPERED_ROW = "pixel_20", 123


@dataclass(slots=True)
class DatasetSteps:
    """The data scientist of tenant ``acme``."""

    home: Home
    data: DemoData
    tracking_uri: str
    decisions: list[str] = field(default_factory=list)
    report_path: Path | None = None
    original: bytes = b""

    def register_clean(self) -> str:
        """``digits-test@1`` and ``digits@1``, both real; the second must be allowed and be in MLflow."""
        test = dataset_guard.register(
            self.data.test, name="digits-test", tenant="acme", label="label", split="test", home=self.home
        )
        report = dataset_guard.register(
            self.data.train,
            name="digits",
            tenant="acme",
            label="label",
            split="train",
            against=["digits-test@1"],
            home=self.home,
        )
        self.decisions += [test.decision_id, report.decision_id]
        expect(report.verdict == "allow", f"verdict {report.verdict}: {report.summary}")
        skipped = [c["name"] for c in report.checks if c["skipped"] and c["name"] == "expectations"]
        expect(not skipped, "the Great Expectations suite did not run")
        shown = self._in_mlflow(report)
        return (
            f"{report.ref} {report.verdict}, {report.rows} rows, {report.fingerprint[:16]}..., signed by "
            f"{report.key_id[:12]}, MLflow shows digest {shown[:16]}..."
        )

    def _in_mlflow(self, report: dataset_guard.Report) -> str:
        import mlflow

        from dataset_guard.integrations.mlflow_data import record_registration

        folder = self.home.path("datasets", report.tenant, report.name, str(report.version))
        envelope = json.loads((folder / "record.dsse.json").read_text())
        run_id = record_registration(report, tracking_uri=self.tracking_uri, attestation=envelope)
        run = mlflow.MlflowClient(self.tracking_uri).get_run(run_id)
        logged = run.inputs.dataset_inputs[0].dataset
        expect(logged.digest == report.digest, f"MLflow shows digest {logged.digest}, not {report.digest}")
        profile = json.loads(logged.profile)
        expect(profile.get("guard_verdict") == report.verdict.value, f"MLflow's panel shows {profile}")
        return str(logged.digest)

    def catch_poison(self) -> str:
        """``digits@2`` against the trusted ``digits@1``: quarantined, with the planted rows named."""
        report = dataset_guard.register(
            self.data.poisoned,
            name="digits",
            tenant="acme",
            label="label",
            split="train",
            against=["digits-test@1"],
            trusted="digits@1",
            home=self.home,
        )
        self.decisions.append(report.decision_id)
        self.report_path = report.report_path
        self._in_mlflow(report)
        expect(report.verdict == "quarantine", f"verdict {report.verdict}: {report.summary}")
        planted = self.data.planted
        parts = []
        for rule, rows, what in (
            ("POIS001", planted.flipped, "flipped labels"),
            ("POIS010", planted.triggered, "trigger patch"),
            ("LEAK002", planted.copied, "copied test rows"),
        ):
            named = {row for f in report.findings if f.rule_id == rule for row in f.rows}
            hits = len(named & rows)
            precision, recall = hits / max(1, len(named)), hits / len(rows)
            parts.append(
                f"{what} [{rule}] {len(rows)} planted, precision {precision:.2f}, recall {recall:.2f}"
            )
            expect(
                precision >= 0.95 and recall >= 0.95,
                f"{what}: precision {precision:.2f}, recall {recall:.2f}",
            )
        return f"{report.ref} {report.verdict}; " + "; ".join(parts)

    def tamper(self) -> None:
        """Change one value of the registered file in place, size and mtime kept."""
        self.original = self.data.train.read_bytes()
        before = self.data.train.stat()
        change_one_value_in_place(self.data.train, column=TAMPERED_COLUMN, row=TAMPERED_ROW, to=99.0)
        after = self.data.train.stat()
        expect(
            (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns),
            "the planted change did not keep size and mtime",
        )
        expect(self.data.train.read_bytes() != self.original, "the file was not changed")

    def restore(self) -> None:
        """Put the original bytes back."""
        self.data.train.write_bytes(self.original)

    def verify_names_the_change(self) -> str:
        """``verify`` fails, naming file, block, column and row; the restored file passes again."""
        self.tamper()
        try:
            found = dataset_guard.verify("digits@1", tenant="acme", home=self.home)
        finally:
            self.restore()
        expect(not found.ok, "verify did not notice the change")
        named = [(c.file, c.block, c.column, list(c.rows)) for c in found.changes]
        wanted = [(self.data.train.name, 0, TAMPERED_COLUMN, [TAMPERED_ROW])]
        expect(named == wanted, f"verify named {named}, not {wanted}")
        again = dataset_guard.verify("digits@1", tenant="acme", home=self.home)
        expect(again.ok, f"the restored file does not verify: {again.problems}")
        file, block, column, rows = named[0]
        return f"verify failed: {file}, block {block}, column {column}, rows {rows}; restored file verifies"
