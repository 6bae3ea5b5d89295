"""Records and row proofs that earlier releases signed are believed for ever, by strangers' tools too."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_guard.proofs.prove import check_proof
from dataset_guard.registry import record as records
from guard_core.attestation import Verifier

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
VERIFIER = Verifier.of(GOLDEN / "record-key.pub.pem")
ROWS = {"present": [7, 1], "absent": [-1, 0]}


@pytest.mark.parametrize("name", ["record-1", "record-1-rows-root"])
def test_a_record_of_an_earlier_release_is_believed(name):
    record = records.load_signed(GOLDEN / name, VERIFIER, ref="acme/golden@1")
    assert record["record_version"] == 1
    assert record["content"]["rows"] == 1000
    assert ("rows_root" in record) == name.endswith("rows-root")


@pytest.mark.parametrize("name", ["record-1", "record-1-rows-root"])
def test_the_reference_verifier_of_dsse_believes_it_too(name):
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    [(key_id, public)] = VERIFIER.keys.items()
    key = SSlibKey(key_id, "ed25519", "ed25519", {"public": public.public_bytes_raw().hex()})
    envelope = Envelope.from_dict(json.loads((GOLDEN / name / records.ENVELOPE).read_text()))
    assert envelope.verify([key], 1)


@pytest.mark.parametrize("present", ["present", "absent"])
def test_a_row_proof_of_an_earlier_release_still_holds(present):
    proof = json.loads((GOLDEN / f"row-proof-{present}.json").read_text())
    opening = json.loads((GOLDEN / f"row-proof-{present}.opening.json").read_text())
    n, label = ROWS[present]
    row = pa.table({"n": pa.array([n], pa.int64()), "label": pa.array([label], pa.int8())})
    shown = check_proof(proof, VERIFIER, row=row, opening=opening)
    record = json.loads((GOLDEN / "record-1-rows-root" / records.RECORD).read_text())
    assert shown.present is (present == "present")
    assert shown.rows_root == record["rows_root"]
