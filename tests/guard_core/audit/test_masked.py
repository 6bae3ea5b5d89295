"""What leaves the home is what guard/audit/mask lets out, or nothing."""

from __future__ import annotations

import json
import shutil

import pytest

from guard_core.audit.masked import Mask, Masks, masked
from guard_core.audit.segments import segments
from guard_core.cli import main
from guard_core.config import load_settings
from guard_core.errors import Undecidable
from guard_core.findings import Enforcement
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies
from guard_core.testing import engine_of

MASKS = """
masks:
  - {decision: "*", pointer: /principal/credential_id}
  - {decision: guard/dataset/use/decision, pointer: /workload}
  - {decision: guard/dataset/use/decision, pointer: /dataset/name, replace: "(kept back)"}
  - {decision: dataset.read, pointer: /uri}
"""


def decided(*masks, **question):
    return masked({"kind": "decision", "input": question}, [Mask.of(mask) for mask in masks])


@pytest.fixture
def policies(tmp_path, monkeypatch):
    """A policy folder of this test's own, in force."""
    folder = tmp_path / "policies"
    shutil.copytree(shipped_policies(), folder)
    (folder / "data" / "masks.yaml").write_text(MASKS)
    monkeypatch.setenv("TRAINGUARD_POLICY_DIR", str(folder))
    return folder


@pytest.fixture
def used(home):
    """A home with one decision and one event."""
    principal = home.principal(tenant="acme")
    home.decide(
        "guard/dataset/use/decision",
        {"dataset": {"name": "digits"}, "purpose": "train", "workload": "raysubmit_1"},
        principal=principal,
        enforcement=Enforcement.ENFORCED,
    )
    home.audit.event("dataset.read", subject="s", data={"uri": "s3://a"}, enforcement=Enforcement.DETECTIVE)
    return home


def exported(capfdbinary, *more):
    assert main(["audit", "export", *more]) == 0
    return [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]


def test_a_removed_field_is_gone_and_named_in_erased():
    assert decided("/a/b", a={"b": 1, "c": 2}) == {
        "kind": "decision",
        "input": {"a": {"c": 2}},
        "erased": ["/input/a/b"],
    }


def test_a_replaced_field_holds_the_constant_and_is_named_in_masked():
    found = decided({"pointer": "/a", "replace": "x"}, a={"secret": 1})
    assert (found["input"], found["masked"]) == ({"a": "x"}, ["/input/a"])
    assert "erased" not in found


def test_a_pointer_to_nothing_changes_nothing_and_invents_nothing():
    before = {"kind": "decision", "input": {"a": [1], "b": "text"}}
    nothing = ["/x", "/a/1", "/a/-1", "/a/01", "/b/0", {"pointer": "/x/y", "replace": "z"}]
    assert masked(before, [Mask.of(mask) for mask in nothing]) == before


def test_elements_are_removed_as_they_were_numbered_in_the_record():
    found = decided("/a/0", "/a/1", "/a/10", a=list(range(12)))
    assert found["input"]["a"] == [2, 3, 4, 5, 6, 7, 8, 9, 11]


def test_escaped_pointers_name_keys_with_slashes_and_tildes():
    found = decided("/a~1b", "/c~0d", **{"a/b": 1, "c~d": 2, "e": 3})
    assert (found["input"], found["erased"]) == ({"e": 3}, ["/input/a~1b", "/input/c~0d"])


def test_the_words_of_every_reason_can_be_hidden_although_nobody_knows_its_place():
    deny = [{"rule": "r1", "msg": "user alice"}, {"rule": "r2", "msg": "bob", "*": 1}]
    record = {"kind": "decision", "input": {"msg": 1}, "result": {"deny": deny, "allow": False}}
    masks = [
        Mask.of({"pointer": "/deny/*/msg", "replace": "(kept back)", "part": "result"}),
        Mask.of({"pointer": "/deny/1/*", "part": "result"}),  # a star in a name is a star
        Mask.of({"pointer": "/nothing/*/here", "part": "result"}),
    ]
    found = masked(record, masks)
    assert found["result"]["deny"] == [
        {"rule": "r1", "msg": "(kept back)"},
        {"rule": "r2", "msg": "(kept back)"},
    ]
    assert found["masked"] == ["/result/deny/0/msg", "/result/deny/1/msg"]
    assert found["erased"] == ["/result/deny/1/*"]
    assert found["input"] == {"msg": 1}
    assert record["result"]["deny"][0]["msg"] == "user alice"


def test_who_asked_and_about_what_can_be_hidden_and_nothing_else_of_the_record():
    record = {"kind": "decision", "input": {}, "subject": "acme/digits@1", "requested_by": "acme/alice"}
    masks = [
        {"pointer": "/subject", "part": "record"},
        {"pointer": "/requested_by", "part": "record", "replace": "(kept)"},
    ]
    kept = masked(record, [Mask.of(mask) for mask in masks])
    assert kept == {
        "kind": "decision", "input": {}, "requested_by": "(kept)",
        "erased": ["/subject"], "masked": ["/requested_by"],
    }  # fmt: skip
    for pointer in ("/decision_id", "/subject/x", "/_prev"):
        with pytest.raises(ValueError, match="only /subject and /requested_by"):
            Mask.of({"pointer": pointer, "part": "record"})


def test_who_asked_stays_off_the_disk_and_the_log_is_still_read(home, policies):
    (policies / "data" / "masks.yaml").write_text(
        'masks: [{decision: "*", pointer: /subject, part: record},'
        ' {decision: "*", pointer: /requested_by, part: record}]'
    )
    with Home.open(load_settings(audit={"mask_on_write": True})) as strict:
        decision = strict.decide(
            "guard/dataset/use/decision",
            {"dataset": None, "purpose": "train", "workload": None},
            principal=strict.principal(tenant="acme"),
            subject="acme/secret@1",
            enforcement=Enforcement.ENFORCED,
        )
        written = segments(strict.audit.directory)[-1].read_text()
        assert decision.decision_id in written
        assert "secret@1" not in written
        assert "requested_by" not in strict.decision_record(decision.decision_id)
    assert main(["audit", "verify"]) == 0


def test_a_record_that_is_no_decision_has_no_answer_to_mask():
    record = {"kind": "dataset.read", "data": {"a": 1}, "result": {"a": 1}}
    assert masked(record, [Mask.of({"pointer": "/a", "part": "result"})]) == record


def test_masked_on_writing_the_log_never_holds_it(used, policies, capfdbinary, monkeypatch):
    (policies / "data" / "masks.yaml").write_text(
        MASKS + "  - {decision: '*', part: result, pointer: /deny/*/msg, replace: (kept back)}\n"
    )
    with Home.open(load_settings(audit={"mask_on_write": True})) as strict:
        decision = strict.decide(
            "guard/dataset/use/decision",
            {"dataset": {"name": "hidden"}, "purpose": "train", "workload": "raysubmit_2"},
            principal=strict.principal(tenant="acme"),
            enforcement=Enforcement.ENFORCED,
        )
        assert "hidden" not in segments(strict.audit.directory)[-1].read_text()
        record = strict.decision_record(decision.decision_id)
    assert {"/input/dataset/name", "/result/deny/0/msg"} <= set(record["masked"])
    assert "/input/principal/credential_id" in record["erased"]
    assert {reason["msg"] for reason in record["result"]["deny"]} == {"(kept back)"}
    assert all(reason.msg != "(kept back)" for reason in decision.reasons)  # the caller is told in full
    assert [line["event_id"] for line in exported(capfdbinary) if "event_id" in line]
    assert main(["audit", "verify"]) == 0


def test_what_cannot_be_masked_is_not_written_and_so_not_decided(used, policies):
    (policies / "guard" / "audit" / "mask" / "mask.rego").write_text(
        'package guard.audit.mask\n\ndecision := {"allow": false, "deny": []}\n'
    )
    with Home.open(load_settings(audit={"mask_on_write": True})) as strict:
        before = strict.audit.head().size
        with pytest.raises(Undecidable, match="guard/dataset/use/decision is not put on record"):
            strict.decide(
                "guard/dataset/use/decision",
                {},
                principal=strict.principal(tenant="acme"),
                enforcement=Enforcement.ENFORCED,
            )
        assert strict.audit.head().size == before


def test_what_was_erased_when_it_was_recorded_stays_named():
    record = {"kind": "decision", "input": {"a": 1}, "erased": ["/input/token"]}
    assert masked(record, [Mask.of("/a")])["erased"] == ["/input/token", "/input/a"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("/a", "/a/b"), ("/a", {"pointer": "/a/b", "replace": "x"}), ("/a", {"pointer": "/a", "replace": "x"})],
)
def test_removing_wins_whatever_else_is_said_of_the_field(first, second):
    for masks in ((first, second), (second, first)):
        assert decided(*masks, a={"b": "raw"})["input"] == {}


def test_masking_leaves_the_record_itself_alone():
    record = {"kind": "decision", "input": {"a": {"b": [1, 2]}}}
    masked(record, [Mask.of("/a/b/0")])
    assert record == {"kind": "decision", "input": {"a": {"b": [1, 2]}}}


def test_an_export_is_masked_by_the_policy_in_force_and_the_log_keeps_all(used, policies, capfdbinary):
    decision, event = exported(capfdbinary)
    assert "credential_id" not in decision["input"]["principal"]
    assert "workload" not in decision["input"]
    assert decision["input"]["dataset"] == {"name": "(kept back)"}
    assert decision["erased"] == ["/input/principal/credential_id", "/input/workload"]
    assert decision["masked"] == ["/input/dataset/name"]
    assert (event["data"], event["erased"]) == ({}, ["/data/uri"])
    kept = next(used.audit.records(kind="decision"))
    assert (kept["input"]["workload"], kept["input"]["dataset"]) == ("raysubmit_1", {"name": "digits"})


def test_a_masked_export_has_no_hash_that_would_confirm_a_guess_of_what_is_masked(used, capfdbinary):
    assert not [name for record in exported(capfdbinary) for name in record if name.startswith("_")]


def test_an_unmasked_export_is_the_whole_log(used, capfdbinary):
    assert main(["audit", "export", "--unmasked"]) == 0
    assert capfdbinary.readouterr().out == (used.audit.directory / "000000000000.jsonl").read_bytes()


def test_only_a_platform_admin_exports_unmasked(used, capsys, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_TOKEN", used.credentials.issue(tenant="acme", user="ann"))
    assert main(["audit", "export", "--unmasked"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == (
        "",
        "error: only a platform admin may export unmasked records; leave out --unmasked\n",
    )


def test_a_broken_mask_policy_keeps_everything_in(used, policies, tmp_path, capsys):
    (policies / "data" / "masks.yaml").write_text("masks: 7\n")
    target = tmp_path / "export.jsonl"
    assert main(["audit", "export", "--output", str(target)]) == 3
    assert "stay in the home, because the mask policy cannot be asked: " in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('decision := {"allow": false, "deny": [{"rule": "r", "msg": "not today"}]}', "not today [r]"),
        ('decision := {"allow": true}', "its `mask` is None, not a list"),
        ('decision := {"allow": true, "mask": ["input/a"]}', "does not begin with a slash"),
        ('decision := {"allow": true, "mask": [{"pointer": "/a"}]}', "neither a JSON pointer nor"),
        ('decision := {"allow": true, "mask": []} if input.no', "gave no usable answer"),
    ],
)
def test_an_answer_that_does_not_say_what_to_mask_lets_nothing_out(body, told, clock):
    engine = engine_of({"mask.rego": f"package guard.audit.mask\n\n{body}\n"})
    with pytest.raises(Undecidable, match=r"stay in the home") as raised:
        Masks(lambda: engine, clock).leaving([{"kind": "decision", "path": "p/decision", "input": {"a": 1}}])
    assert told in str(raised.value)


def test_each_distinct_question_of_a_batch_is_asked_once(clock):
    engine = engine_of({"m.rego": 'package guard.audit.mask\n\ndecision := {"allow": true, "mask": []}\n'})
    record = {"kind": "decision", "path": "p/decision", "input": {"principal": {"tenant": "acme"}}}
    Masks(lambda: engine, clock).leaving([record] * 50 + [{**record, "path": "q/decision"}])
    assert [q["decision"] for q in engine.asked("guard/audit/mask/decision")] == ["p/decision", "q/decision"]


def test_an_opa_server_is_asked_for_the_masks_as_for_every_decision(
    used, shipped_opa, monkeypatch, capfdbinary
):
    embedded = exported(capfdbinary)
    monkeypatch.setenv("TRAINGUARD_POLICY_ENGINE", "server")
    monkeypatch.setenv("TRAINGUARD_POLICY_SERVER_URL", shipped_opa.url)
    monkeypatch.setenv("TRAINGUARD_POLICY_DEADLINE_MS", "5000")
    assert exported(capfdbinary) == embedded
    assert embedded[0]["erased"] == ["/input/principal/credential_id"]
