"""Our own metrics, and the dashboard and alert rules that are built on them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from compute_guard.incidents.store import Incidents
from compute_guard.monitoring.live import Watch
from compute_guard.monitoring.metrics import Family, exposition, families
from compute_guard.monitoring.monitor import Monitor
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.sources.exposition import parse_line
from compute_guard.usage.sources.synthetic import Load, SyntheticSource
from guard_core.cli import main

EXAMPLES = Path(__file__).parents[3] / "examples" / "observability"
LABELS = {
    *("tenant", "queue", "kind", "severity", "detector"),
    *("resource", "bucket", "problem", "exercise", "outcome", "drill", "audience", "overdue"),
}


def samples(home):
    lines = [line for line in exposition(home).splitlines() if not line.startswith("#")]
    return [parse_line(line) for line in lines]


def value(home, name, **labels):
    (found,) = [s.value for s in samples(home) if s.name == name and labels.items() <= s.labels.items()]
    return found


def test_the_text_is_what_prometheus_own_parser_reads(still_home):
    parser = pytest.importorskip("prometheus_client.parser")
    read = {f.name for f in parser.text_string_to_metric_families(exposition(still_home))}
    assert read == {family.name.removesuffix("_total") for family in families(still_home)}


def test_incidents_and_the_alert_budget_are_counted_by_tenant(still_home, seen):
    book = Incidents(still_home)
    found = book.observe(seen("telemetry", "indicator"))
    book.observe(seen("telemetry", kind="idle_hoard", synthetic=True))
    name = "compute_guard_incidents_open"
    assert value(still_home, name, kind="mining", severity="incident", exercise="false") == 1
    assert value(still_home, name, kind="idle_hoard", severity="warning", exercise="true") == 1
    assert value(still_home, "compute_guard_alert_budget_spent", tenant="acme") == 2
    assert value(still_home, "compute_guard_alert_budget_spent", tenant="beta") == 0
    assert value(still_home, "compute_guard_alert_budget_limit") == 20
    book.resolve(found.id, by=still_home.principal(), note="known")
    assert not [s for s in samples(still_home) if s.name == name and s.labels["kind"] == "mining"]
    assert value(still_home, "compute_guard_incidents_opened_total", kind="mining") == 1


def test_notices_that_have_not_left_are_counted_and_told_when_they_should_have(still_home, seen, clock):
    found = Incidents(still_home).observe(seen("telemetry", "indicator"))
    Incidents(still_home).observe(seen("telemetry", "indicator", job="drill", synthetic=True))
    Incidents(still_home).observe(seen("telemetry", job="a mere warning"))

    def due():
        return {
            (sample.labels["audience"], sample.labels["overdue"]): sample.value
            for sample in samples(still_home)
            if sample.name == "compute_guard_notices_due"
        }

    assert due() == {("customer", "false"): 1, ("regulator", "false"): 1}
    clock.advance(seconds=25 * 3600)
    Incidents(still_home).notice_sent(found.id, "customer", still_home.principal())
    assert due() == {("regulator", "true"): 1}


def test_nothing_that_a_job_chooses_becomes_a_label(still_home, seen):
    for number in range(30):
        name = f"evil-{number}"
        Incidents(still_home).observe(seen("telemetry", tenant=name, job=name, kind=name))
    text = exposition(still_home)
    assert "evil" not in text
    assert value(still_home, "compute_guard_incidents_opened_total", tenant="other", kind="other") == 30
    assert {label for sample in samples(still_home) for label in sample.labels} <= LABELS


def test_a_label_cannot_break_out_of_its_quotes():
    family = Family("x", "gauge", "y")
    family.set(1, tenant='a"} 9\nx{b="\\')
    (line,) = [line for line in family.lines() if not line.startswith("#")]
    assert parse_line(line).labels["tenant"].startswith('a"} 9\n')


def test_what_the_monitor_saw_is_there_after_it_ran(still_home):
    load = Load("training", node="n1")
    book = LeaseBook.of([Lease(load.device.key, "acme", "job-1")])
    source = SyntheticSource((load,), 9, seed=4)
    monitor = Monitor(still_home, book, None)
    Watch(monitor, source, book, stopped=lambda: False, say=lambda _: None).run()
    assert value(still_home, "compute_guard_monitor_samples_total") == 9
    assert value(still_home, "compute_guard_devices") == 1
    span = np.ptp(source.read().ts_ns) / 1e9
    assert value(still_home, "compute_guard_gpu_seconds_total", bucket="tenant", tenant="acme") == (
        pytest.approx(span, abs=0.01)
    )


def test_the_command_prints_them_for_an_admin_and_for_nobody_else(home, home_dir, capsys, monkeypatch):
    assert main(["compute", "metrics"]) == 0
    assert "compute_guard_quota_nominal" in capsys.readouterr().out
    monkeypatch.setenv("TRAINGUARD_TOKEN", home.credentials.issue(tenant="acme", user="ada"))
    assert main(["compute", "metrics"]) == 1
    assert capsys.readouterr().out == ""


def used_in(expression):
    return set(re.findall(r"(?<![:\w])compute_guard_\w+", expression))


def test_the_dashboard_draws_only_metrics_and_labels_that_exist(still_home):
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    parse = pytest.importorskip("promql_parser").parse
    known = {family.name for family in families(still_home)}
    assert board["schemaVersion"] >= 39
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 8
    places = []
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["title"]
        for target in panel["targets"]:
            parse(re.sub(r"\$__?\w+", "5m", target["expr"]))
            assert used_in(target["expr"])
            assert used_in(target["expr"]) <= known
            assert target["expr"].count("(") == target["expr"].count(")")
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= LABELS
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not any(cells & other for other in places)
        places.append(cells)
    assert {"datasource", "tenant"} == {each["name"] for each in board["templating"]["list"]}


def unread(written, taken, place="dashboard"):
    """Places of ``written`` that are not, or not so, in ``taken``."""
    if isinstance(written, dict) and isinstance(taken, dict):
        for name, value in written.items():
            yield from unread(value, taken[name], f"{place}.{name}") if name in taken else [f"{place}.{name}"]
    elif isinstance(written, list) and isinstance(taken, list) and len(written) == len(taken):
        for number, pair in enumerate(zip(written, taken, strict=True)):
            yield from unread(*pair, f"{place}[{number}]")
    elif written != taken:
        yield place


@pytest.mark.parametrize("mistake", [None, "gridpos", "fieldConfigs"])
def test_grafanas_own_types_read_all_of_the_dashboard_and_would_miss_a_field_they_do_not_know(mistake):
    sdk = pytest.importorskip(
        "grafana_foundation_sdk", reason="Grafana's types (dev group) are not installed"
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    assert sdk
    register_default_plugins()  # panels and queries of Grafana's own kinds, Prometheus' among them
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    if mistake:
        board["panels"][0][mistake] = {}
    taken = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert list(unread(board, taken)) == ([f"dashboard.panels[0].{mistake}"] if mistake else [])


def test_prometheus_reads_every_expression_of_the_dashboard(tmp_path):
    board = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = [re.sub(r"\$__?\w+", "5m", expression) for expression in asked]  # as Grafana fills them in
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(asked)]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = promtool("check", "rules", str(path))
    assert (checked.returncode, f"{len(asked)} rules found" in checked.stdout) == (0, True), checked.stderr


def test_each_alert_rule_uses_what_exists_and_says_what_it_is_about(still_home):
    groups = yaml.safe_load((EXAMPLES / "prometheus-rules.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    known = {family.name for family in families(still_home)}
    assert len({group["name"] for group in groups}) == len(groups)
    assert len([rule for rule in rules if "alert" in rule]) >= 6
    parse = pytest.importorskip("promql_parser").parse
    for rule in rules:
        parse(rule["expr"])  # a real PromQL parser; raises
        names = used_in(rule["expr"])
        assert names <= known
        assert names or any(name in rule["expr"] for name in recorded)
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", rule["expr"])) <= LABELS
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= LABELS
            assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))


def promtool(*args):
    """Prometheus' own checker, run beside the rules; skipped where it is not installed."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian: the package prometheus)")
    command = [tool, *args]
    return subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False, timeout=60)


def test_the_rules_fire_when_they_should_and_are_silent_when_they_should_be():
    checked = promtool("check", "rules", "prometheus-rules.yaml")
    assert (checked.returncode, "SUCCESS" in checked.stdout) == (0, True), checked.stderr
    told = promtool("test", "rules", "prometheus-rules-test.yaml")
    assert told.returncode == 0, told.stdout + told.stderr


def test_every_alert_is_tried_on_series_that_we_really_write(still_home):
    rules = (EXAMPLES / "prometheus-rules.yaml").read_text()
    cases = yaml.safe_load((EXAMPLES / "prometheus-rules-test.yaml").read_text())["tests"]
    tried = {rule["alertname"] for case in cases for rule in case["alert_rule_test"] if rule["exp_alerts"]}
    assert tried == set(re.findall(r"alert: (\w+)", rules))
    known = {family.name for family in families(still_home)}
    for series in (one["series"] for case in cases for one in case.get("input_series", ())):
        name, _, labels = series.partition("{")
        assert name in known
        assert set(re.findall(r"(\w+)=", labels)) <= LABELS
