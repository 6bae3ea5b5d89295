"""Row proofs: true ones convince a stranger with our key; every altered one is refused; none leaks a row."""

import base64
import copy
import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.hashing.rowhash import row_hashes
from dataset_guard.proofs.prove import check_proof, prove
from dataset_guard.registry.store import Registry
from guard_core.attestation import Verifier, canonical_json
from guard_core.cli import main
from guard_core.errors import Denied, Tampered, UserError
from guard_core.testing import temporary_home

ROWS = 70_000
DAY = dt.date(2026, 1, 1)
TABLE = pa.table(
    {
        "n": pa.array(range(ROWS), pa.int32()),
        "x": np.random.default_rng(5).normal(size=ROWS).round(3),
        "name": [f"row {i % 9_000}" for i in range(ROWS)],
        "day": [DAY + dt.timedelta(days=i % 300) for i in range(ROWS)],
        "label": pa.array([i % 3 for i in range(ROWS)], pa.int8()),
    }
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home with TABLE registered, and a verifier that has nothing but its public keys."""
    root = tmp_path_factory.mktemp("world")
    pq.write_table(TABLE, root / "t.parquet")
    with temporary_home() as home:
        dataset_guard.register(
            root / "t.parquet", name="set", tenant="acme", label="label", home=home, checks=[]
        )
        yield home, Verifier.of(*home.path("keys").glob("*.pub.pem"))


def proved(home, row, tenant="acme"):
    return prove("set@1", row, tenant=tenant, home=home)


def absent_row():
    row = TABLE.slice(5, 1).to_pydict()
    return pa.table({**row, "n": pa.array([-5], pa.int32())}, schema=TABLE.schema)


def travelled(found):
    """The proof as it arrives elsewhere: as bytes."""
    return json.loads(found.to_bytes())


@pytest.mark.parametrize("row", [0, 12_345, ROWS - 1])
def test_a_row_of_the_version_is_proved_to_be_in_it(world, row):
    home, verifier = world
    shown = check_proof(travelled(proved(home, TABLE.slice(row, 1))), verifier)
    assert (shown.ref, shown.present, shown.rows) == ("acme/set@1", True, ROWS)


def test_another_row_is_proved_not_to_be_in_it(world):
    home, verifier = world
    shown = check_proof(travelled(proved(home, absent_row())), verifier)
    assert shown.present is False


def test_the_proof_speaks_of_the_root_that_the_signed_record_holds(world):
    home, verifier = world
    shown = check_proof(travelled(proved(home, absent_row())), verifier)
    record = Registry(home).reference("set@1", tenant="acme").record
    assert shown.rows_root == record["rows_root"]
    assert shown.fingerprint == record["content"]["fingerprint"]


def test_a_proof_is_small(world):
    home, _ = world
    per_level = 32 * 4 / 3
    for row in (TABLE.slice(1, 1), absent_row()):
        size = len(proved(home, row).to_bytes())
        assert size + 8 * per_level <= 2048  # ten million rows have at most eight levels more


def flipped(text):
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[len(raw) // 2] ^= 1
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


ALTERATIONS = {
    "another index": lambda p: p.update(index=p["index"] + 1),
    "another left neighbour": lambda p: p["gap"].__setitem__(0, flipped(p["gap"][0])),
    "another right neighbour": lambda p: p["gap"].__setitem__(1, flipped(p["gap"][1])),
    "no right neighbour": lambda p: p["gap"].__setitem__(1, None),
    "another path": lambda p: p.update(path=flipped(p["path"])),
    "a shorter path": lambda p: p.update(path=p["path"][:-43]),
    "no path": lambda p: p.update(path=""),
    "no signature": lambda p: p["signed"]["signatures"].clear(),
}


@pytest.mark.parametrize("case", sorted(ALTERATIONS))
def test_an_altered_proof_is_refused(world, case):
    home, verifier = world
    for row in (TABLE.slice(40_000, 1), absent_row()):
        proof = travelled(proved(home, row))
        ALTERATIONS[case](proof)
        with pytest.raises(Tampered):
            check_proof(proof, verifier)


def test_a_signed_statement_that_was_edited_is_refused(world):
    home, verifier = world
    proof = travelled(proved(home, absent_row()))
    payload = json.loads(base64.b64decode(proof["signed"]["payload"]))
    for change in ({"rows": ROWS + 1}, {"ref": "acme/set@2"}, {"row": flipped(payload["row"])}):
        edited = copy.deepcopy(proof)
        edited["signed"]["payload"] = base64.b64encode(json.dumps({**payload, **change}).encode()).decode()
        with pytest.raises(Tampered, match="signature"):
            check_proof(edited, verifier)


def test_a_proof_is_checked_from_its_bytes(world):
    home, verifier = world
    found = proved(home, TABLE.slice(3, 1))
    assert check_proof(found.to_bytes(), verifier) == check_proof(travelled(found), verifier)
    for other in (b"", b"[]", b"{}", found.to_bytes()[:-1], b"\xff"):
        with pytest.raises(UserError, match="not a row proof"):
            check_proof(other, verifier)


def test_a_signed_statement_of_another_shape_is_no_proof(world):
    home, verifier = world
    proof = travelled(proved(home, TABLE.slice(3, 1)))
    payload = json.loads(base64.b64decode(proof["signed"]["payload"]))
    for change in ({"rows": "7"}, {"root": None}, {"row": "short"}):
        signed = home.signer.sign_bytes(
            canonical_json({**payload, **change}), payload_type="application/vnd.trainguard.row-root+json"
        )
        with pytest.raises(Tampered, match="not one of a row proof"):
            check_proof({**proof, "signed": signed}, verifier)


def test_the_path_of_one_row_does_not_serve_another(world):
    home, verifier = world
    one, other = (travelled(proved(home, TABLE.slice(row, 1))) for row in (1, 2))
    with pytest.raises(Tampered, match="other rows"):
        check_proof({**one, **{k: other[k] for k in ("index", "gap", "path")}}, verifier)


def test_a_proof_by_somebody_else_is_refused(world):
    home, _ = world
    with temporary_home() as other:
        strangers = other.signer.verifier
        with pytest.raises(Tampered, match="not trusted"):
            check_proof(travelled(proved(home, absent_row())), strangers)


def test_who_holds_row_and_opening_sees_that_the_proof_is_about_it(world):
    home, verifier = world
    found = proved(home, TABLE.slice(9, 1))
    shown = check_proof(found.proof, verifier, row=TABLE.slice(9, 1), opening=found.opening)
    assert shown.row_checked
    with pytest.raises(Tampered, match="about another row"):
        check_proof(found.proof, verifier, row=TABLE.slice(10, 1), opening=found.opening)
    with pytest.raises(UserError, match="takes both"):
        check_proof(found.proof, verifier, row=TABLE.slice(9, 1))


def test_a_guessed_row_cannot_be_tried_against_a_proof(world):
    home, _ = world
    proof = proved(home, TABLE.slice(9, 1)).proof
    [(hi, lo)] = row_hashes(TABLE.slice(9, 1).combine_chunks().to_batches()[0], key=None)
    public = int(hi).to_bytes(8, "big") + int(lo).to_bytes(8, "big")
    seen = json.dumps(proof) + base64.b64decode(proof["signed"]["payload"]).decode()
    for text in (public.hex(), base64.urlsafe_b64encode(public).rstrip(b"=").decode(), "row 9"):
        assert text not in seen
    again = proved(home, TABLE.slice(9, 1)).proof
    assert proof["gap"] == again["gap"]  # the same place under the same key
    with temporary_home() as other:
        dataset_guard.register(TABLE, name="set", tenant="acme", home=other, checks=[])
        assert proved(other, TABLE.slice(9, 1)).proof["gap"] != proof["gap"]  # another key, other hashes


def test_two_tenants_have_other_roots_for_the_same_rows():
    with temporary_home() as home:
        for tenant in ("acme", "beta"):
            small = TABLE.slice(0, 100)
            dataset_guard.register(small, name="set", tenant=tenant, home=home, checks=[])
        roots = {t: Registry(home).reference("set@1", tenant=t).record["rows_root"] for t in ("acme", "beta")}
        assert roots["acme"] != roots["beta"]


def test_a_json_line_is_taken_with_the_registered_types(world, tmp_path):
    home, verifier = world
    row = TABLE.slice(33, 1).to_pylist()[0]
    (tmp_path / "row.jsonl").write_text(json.dumps({**row, "day": row["day"].isoformat()}) + "\n")
    assert check_proof(proved(home, tmp_path / "row.jsonl").proof, verifier).present


BAD_ROWS = {
    "two rows": (TABLE.slice(0, 2), "has 2 rows"),
    "no rows": (TABLE.slice(0, 0), "has 0 rows"),
    "a column too few": (TABLE.slice(0, 1).drop_columns(["x"]), "has no column 'x'"),
    "a column too many": (TABLE.slice(0, 1).append_column("y", pa.array([1])), "a column 'y' too many"),
    "a value of another type": (
        TABLE.slice(0, 1).set_column(0, "n", pa.array(["nine"])),
        "column 'n' is string and cannot be taken as int32",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_ROWS))
def test_what_is_not_one_row_of_that_table_is_the_users_mistake(world, case):
    row, said = BAD_ROWS[case]
    with pytest.raises(UserError, match=said):
        proved(world[0], row)


def test_nobody_proves_rows_of_another_tenants_version(world, monkeypatch):
    from pydantic import SecretStr

    from guard_core.home import Home

    home, _ = world
    token = home.credentials.issue(tenant="beta", user="bo")
    settings = home.settings.model_copy(update={"token": SecretStr(token)})
    with Home.open(settings) as theirs, pytest.raises(Denied, match="belongs to another tenant"):
        prove("acme/set@1", absent_row(), home=theirs)


def test_proving_is_on_record_without_the_row(world):
    home, _ = world
    found = proved(home, TABLE.slice(50, 1))
    last = list(home.audit.records(kind="dataset.proved"))[-1]
    assert (last["subject"], last["data"]["present"]) == ("acme/set@1", True)
    assert all(h not in json.dumps(last) for h in found.proof["gap"])


def test_from_the_command_line(home_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pq.write_table(TABLE.slice(0, 500), "t.parquet")
    pq.write_table(TABLE.slice(7, 1), "row.parquet")
    assert (
        main(["dataset", "register", "t.parquet", "--name", "set", "--tenant", "acme", "--checks", "schema"])
        == 0
    )
    about = ["prove", "set@1", "--tenant", "acme", "--row-file", "row.parquet"]
    assert main(["dataset", *about, "--out", "proof.json", "--opening", "opening.json"]) == 0
    assert "the row is in acme/set@1" in capsys.readouterr().err
    [key] = (home_dir / "keys").glob("*.pub.pem")
    monkeypatch.setenv("TRAINGUARD_HOME", str(tmp_path / "nowhere"))
    check = ["dataset", "check-proof", "proof.json", "--key", str(key)]
    assert main([*check, "--row-file", "row.parquet", "--opening", "opening.json"]) == 0
    assert "this row is among the 500 rows of acme/set@1" in capsys.readouterr().out
    assert main([*check, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["row_checked"] is False
    assert not (tmp_path / "nowhere").exists()
    proof = json.loads((tmp_path / "proof.json").read_text())
    (tmp_path / "proof.json").write_text(json.dumps({**proof, "index": proof["index"] + 1}))
    assert main(check) == 1
