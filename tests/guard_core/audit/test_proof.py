import copy

import pytest

from guard_core.attestation import Signer, Verifier
from guard_core.audit.proof import check, prove
from guard_core.errors import Tampered, UserError


@pytest.fixture
def keys(tmp_path, ten):
    return Verifier.of(tmp_path / "keys")


@pytest.mark.parametrize("number", [0, 5, 9])
def test_a_record_is_proved_to_a_reader_who_has_only_the_public_key(ten, keys, number):
    assert check(prove(ten.directory, number, keys), keys)["number"] == number


def test_an_event_is_found_by_its_id(ten, keys):
    from guard_core.findings import Enforcement

    event_id = ten.event("x.y", subject="s", data={}, enforcement=Enforcement.DETECTIVE)
    proof = prove(ten.directory, event_id, keys)
    assert proof["index"] == 10
    assert check(proof, keys)["event_id"] == event_id


def test_a_proof_of_a_changed_record_does_not_hold(ten, keys):
    proof = prove(ten.directory, 5, keys)
    proof["record"] = proof["record"].replace('"number":5', '"number":6')
    with pytest.raises(Tampered, match="not number 5 of the 10"):
        check(proof, keys)


@pytest.mark.parametrize("change", ["index", "path"])
def test_a_proof_with_another_index_or_path_does_not_hold(ten, keys, change):
    proof = copy.deepcopy(prove(ten.directory, 5, keys))
    if change == "index":
        proof["index"] = 4
    else:
        proof["path"][0] = "00" * 32
    with pytest.raises(Tampered):
        check(proof, keys)


def test_a_proof_signed_by_a_stranger_is_not_trusted(ten, keys, tmp_path):
    proof = prove(ten.directory, 5, keys)
    with pytest.raises(Tampered, match="not trusted"):
        check(proof, Signer.open(tmp_path / "elsewhere").verifier)


def test_a_record_that_is_not_there_cannot_be_proved(ten, keys):
    with pytest.raises(UserError, match="no signed record 10"):
        prove(ten.directory, 10, keys)


def test_no_proof_is_given_from_a_log_that_was_changed(ten, keys):
    path = ten.directory / "000000000000.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":3'))
    with pytest.raises(Tampered, match="not what was signed"):
        prove(ten.directory, 5, keys)


def test_something_else_than_a_proof_is_the_users_mistake(keys):
    with pytest.raises(UserError, match="not an audit proof"):
        check({"format": "trainguard.audit-proof/v1"}, keys)
