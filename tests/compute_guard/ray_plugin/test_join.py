"""The join: a job reads the registered datasets it declared, and no others, because policy sees both."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.ray

READ = """
import sys, ray
ray.init(logging_level="error", log_to_driver=False)
import dataset_guard
from guard_core.errors import Denied
for ref in sys.argv[1:]:
    try:
        print(ref, "rows", len(dataset_guard.ray_data.read(ref).to_pandas()))
    except Denied as error:
        print(ref, "refused:", error)
"""


@pytest.fixture(scope="module")
def registered(ray_cluster, tmp_path_factory):
    """Two small datasets of acme and one of beta, registered for real."""
    import dataset_guard

    folder = tmp_path_factory.mktemp("data")
    for tenant, name in (("acme", "joined"), ("acme", "other"), ("beta", "foreign")):
        file = folder / f"{name}.csv"
        file.write_text("x,y\n" + "".join(f"{i},{i * i}\n" for i in range(200)))
        principal = ray_cluster.home.principal(tenant=tenant)
        report = dataset_guard.register(file, name=name, tenant=principal.tenant, home=ray_cluster.home)
        assert report.verdict in ("allow", "warn"), report.findings
    return folder


def test_a_job_reads_what_it_declared_and_nothing_else(ray_cluster, registered, tmp_path):
    script = tmp_path / "read.py"
    script.write_text(READ)
    client = ray_cluster.client("acme")
    job = client.submit_job(
        entrypoint=f"python {script} joined other beta/foreign", metadata={"datasets": "joined"}
    )
    details = ray_cluster.wait(client, job)
    logs = client.get_job_logs(job)
    assert details.status == "SUCCEEDED", logs
    assert "joined rows 200" in logs
    assert "other refused:" in logs
    assert "beta/foreign refused:" in logs
    reads = [r for r in ray_cluster.home.audit.records(kind="dataset.read") if r["data"]["workload"] == job]
    assert {read["data"]["ref"] for read in reads} == {"acme/joined@1"}


def test_a_job_that_declares_anothers_data_is_not_admitted(ray_cluster, registered):
    with pytest.raises(RuntimeError, match=r"429.*beta/foreign"):
        ray_cluster.client("acme").submit_job(entrypoint="true", metadata={"datasets": "beta/foreign"})
