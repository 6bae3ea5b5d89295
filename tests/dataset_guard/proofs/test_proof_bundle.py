"""Bundles of row proofs: one signature for many rows, each of which is proved by its path alone."""

import copy
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.proofs.proof_bundle import SignedRows, check_proofs, prove_rows
from guard_core.attestation import Verifier
from guard_core.cli import main
from guard_core.errors import Tampered, UserError
from guard_core.testing import temporary_home

ROWS = 3_000
TABLE = pa.table({"n": pa.array(range(ROWS), pa.int32()), "name": [f"row {i % 700}" for i in range(ROWS)]})
ASKED = pa.concat_tables([TABLE.slice(7, 2), pa.table({"n": [-1], "name": ["row 7"]}, schema=TABLE.schema)])
GOLDEN = Path(__file__).parents[2] / "golden" / "v1"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home with TABLE registered, and a verifier that has nothing but its public keys."""
    root = tmp_path_factory.mktemp("world")
    pq.write_table(TABLE, root / "t.parquet")
    with temporary_home() as home:
        dataset_guard.register(root / "t.parquet", name="set", tenant="acme", home=home, checks=[])
        yield home, Verifier.of(*home.path("keys").glob("*.pub.pem"))


@pytest.fixture(scope="module")
def made(world):
    return prove_rows("set@1", ASKED, tenant="acme", home=world[0])


@pytest.fixture
def bundle(made):
    """The bundle as it arrives elsewhere."""
    return json.loads(made.to_bytes())


def test_each_row_has_its_own_answer(world, made, bundle):
    shown = check_proofs(bundle, world[1])
    assert shown.present == made.present == (True, True, False)
    assert (shown.ref, shown.rows, shown.rows_checked) == ("acme/set@1", ROWS, False)


def test_the_opening_shows_that_it_is_about_these_rows_in_this_order(world, made, bundle):
    assert check_proofs(bundle, world[1], rows=ASKED, opening=made.opening).rows_checked
    with pytest.raises(Tampered, match="row 0 is about another row"):
        check_proofs(bundle, world[1], rows=ASKED.take([1, 0, 2]), opening=made.opening)
    with pytest.raises(UserError, match="2 rows where the proof is about 3"):
        check_proofs(bundle, world[1], rows=ASKED.slice(0, 2), opening=made.opening)


def test_after_the_signature_a_path_alone_is_checked(world, bundle):
    signed = SignedRows.of(bundle["signed"], world[1])
    shown = [signed.says(number, proof) for number, proof in enumerate(bundle["proofs"])]
    assert shown == [True, True, False]


def swapped(bundle):
    bundle["proofs"][0], bundle["proofs"][2] = bundle["proofs"][2], bundle["proofs"][0]


def shortened(bundle):
    del bundle["proofs"][2]


def another_path(bundle):
    bundle["proofs"][1]["path"] = bundle["proofs"][0]["path"]


def another_gap(bundle):
    bundle["proofs"][2]["gap"] = bundle["proofs"][0]["gap"]


def another_place(bundle):
    bundle["proofs"][0]["index"] += 1


def resigned(bundle):
    bundle["signed"]["payload"] = bundle["signed"]["payload"][:-4] + "AAA="


@pytest.mark.parametrize("alter", [swapped, shortened, another_path, another_gap, another_place, resigned])
def test_an_altered_bundle_is_refused(world, bundle, alter):
    altered = copy.deepcopy(bundle)
    alter(altered)
    with pytest.raises(Tampered):
        check_proofs(altered, world[1])


def test_what_is_no_bundle_is_said_to_be_none(world, bundle):
    with pytest.raises(UserError, match="not a bundle"):
        check_proofs({"format": "trainguard.row-proof/v1"}, world[1])
    bundle["proofs"][1] = {"index": 1}
    with pytest.raises(UserError, match="proof 1 of the bundle is not a path"):
        check_proofs(bundle, world[1])


def test_no_cell_and_no_public_hash_is_in_a_bundle(made):
    assert b"row 7" not in made.to_bytes()


def test_the_command_line_makes_and_checks_a_bundle(world, tmp_path, capsys, monkeypatch):
    home, _ = world
    monkeypatch.setenv("TRAINGUARD_HOME", str(home.settings.home))
    pq.write_table(ASKED, tmp_path / "asked.parquet")
    asked, out, opening = (str(tmp_path / name) for name in ("asked.parquet", "proofs.json", "opening.json"))
    prove = ["dataset", "prove", "acme/set@1", "--tenant", "acme", "--rows-file", asked]
    assert main([*prove, "--out", out, "--opening", opening]) == 0
    assert "2 of the 3 rows are in acme/set@1" in capsys.readouterr().err
    [key] = home.path("keys").glob("*.pub.pem")
    check = ["dataset", "check-proof", out, "--key", str(key), "--rows-file", asked, "--opening", opening]
    assert main(check) == 0
    said = capsys.readouterr().out
    assert "2 of these rows (3) are among the 3,000 rows of acme/set@1; not there: row 2" in said


def test_a_bundle_from_the_first_release_verifies_for_ever():
    verifier = Verifier.of(GOLDEN / "row-proofs-key.pub.pem")
    bundle = json.loads((GOLDEN / "row-proofs.json").read_bytes())
    assert check_proofs(bundle, verifier).present == (True, True, False)
