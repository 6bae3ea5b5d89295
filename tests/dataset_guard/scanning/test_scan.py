"""One read of the data feeds the fingerprint, the row hashes, the profile and every check."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from check_kit import KEY, Registered, scan

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.discover import Broken, discover
from dataset_guard.checks.leakage.exact_overlap import CHECK as EXACT
from dataset_guard.checks.quality.schema import CHECK as SCHEMA
from dataset_guard.hashing.fingerprint import Fingerprinter
from dataset_guard.hashing.rowhash import RowHasher
from dataset_guard.reading import Source, open_source
from dataset_guard.scanning.scan import scan_source
from guard_core.errors import UserError
from guard_core.findings import Finding, Severity

ROWS = 70_000


@pytest.fixture(scope="module")
def table() -> pa.Table:
    rng = np.random.default_rng(7)
    return pa.table({"x": rng.normal(size=ROWS), "n": np.arange(ROWS), "label": rng.integers(0, 4, ROWS)})


class CountedSource(Source):
    """A source that counts how often each row is read."""

    def __init__(self, table: pa.Table) -> None:
        self._inner = open_source(table)
        self.schema, self.num_rows = self._inner.schema, self._inner.num_rows
        self.uri, self.kind = "counted", "memory"
        self.rows_read = 0

    def stream(self, **asked):
        for batch in self._inner.stream(**asked):
            self.rows_read += batch.num_rows
            yield batch


def test_the_data_is_read_once_for_everything(table):
    source = CountedSource(table)
    context = CheckContext(schema=table.schema, label="label")
    result = scan_source(source, context, row_key=KEY, available=((EXACT, SCHEMA), ()))
    assert source.rows_read == ROWS
    assert result.profile["rows"] == ROWS
    assert result.fingerprint.rows == ROWS
    assert [c["name"] for c in result.checks] == ["exact_overlap", "schema"]


def test_fingerprint_and_row_hashes_are_those_of_their_own_modules(table):
    result = scan(table, label="label")
    alone = Fingerprinter(table.schema)
    for batch in table.to_batches():
        alone.update(batch)
    assert result.fingerprint.fingerprint == alone.finish().fingerprint
    assert result.fingerprint.set_root is not None
    hashes = RowHasher(table.schema, key=KEY, label="label").hash(table.combine_chunks().to_batches()[0])
    assert (result.rowhashes.rows == hashes.keyed).all()
    assert (result.rowhashes.features == hashes.features).all()


def test_without_a_label_there_are_no_feature_hashes(table):
    assert scan(table.select(["x"])).rowhashes.features is None


def test_progress_ends_at_the_last_row_and_names_the_checks(table):
    seen = []
    context = CheckContext(schema=table.schema)
    scan_source(open_source(table), context, row_key=KEY, progress=seen.append, available=((EXACT,), ()))
    assert [p.rows for p in seen if p.stage == "read"] == [65_536, 70_000]
    assert seen[-1].stage == "exact_overlap"
    assert seen[0].total_rows == ROWS


def test_every_stage_has_its_cpu_seconds(table):
    ticks = iter(range(10_000))
    context = CheckContext(schema=table.schema)
    result = scan_source(
        open_source(table), context, row_key=KEY, available=((EXACT,), ()), cpu_clock=lambda: next(ticks)
    )
    expected = {"start", "read", "fingerprint", "row hashes", "profile", "check:exact_overlap"}
    assert set(result.seconds) == expected
    assert min(result.seconds.values()) > 0


def test_only_the_named_checks_run(table):
    context = CheckContext(schema=table.schema)
    result = scan_source(
        open_source(table), context, row_key=KEY, checks=["schema"], available=((EXACT, SCHEMA), ())
    )
    assert [c["name"] for c in result.checks] == ["schema"]


@dataclass(frozen=True)
class Tuned:
    """A check with a setting; as it ships it is off at a depth of none."""

    name: str
    depth: int
    version: str = "1"
    rule_ids: tuple[str, ...] = ("QUAL001",)
    needs: frozenset[str] = frozenset()

    def applies(self, context):
        return None if self.depth else "it is off"

    def start(self, context):
        return Idle()


class Idle:
    """Sees everything and finds nothing."""

    def update(self, *_):
        pass

    def merge(self, other):
        pass

    def finish(self):
        return ()


def scope(table, *, checks=None, budget=None, **parameters):
    """What a scan by checks `on` and `off` says that it lacks."""
    context = CheckContext(schema=table.schema, parameters=parameters)
    available = ((Tuned("off", 0), Tuned("on", 1)), ())
    found = scan_source(
        open_source(table), context, row_key=KEY, checks=checks, available=available, budget=budget
    ).scope
    return found.left_out, found.changed, found.cut_short


def test_a_scan_says_which_checks_were_left_out_set_otherwise_or_stopped(table):
    assert scope(table) == ((), (), ())
    assert scope(table, checks=["off"]) == (("on",), (), ())
    assert scope(table, on={"depth": 2}) == ((), ("on",), ())
    assert scope(table, budget=1e-9) == ((), (), ("on",))


def test_a_check_that_is_off_as_it_ships_is_no_loss(table):
    assert scope(table, checks=["on"]) == ((), (), ())
    assert scope(table, off={"depth": 1}) == ((), (), ())


def test_an_unknown_check_is_refused_with_the_names_there_are(table):
    context = CheckContext(schema=table.schema)
    with pytest.raises(UserError, match=r"no check 'shema'; the checks are: exact_overlap, schema"):
        scan_source(
            open_source(table), context, row_key=KEY, checks=["shema"], available=((EXACT, SCHEMA), ())
        )


def test_an_unknown_label_is_refused_with_the_columns_there_are(table):
    with pytest.raises(UserError, match="label column 'class' is not in the data; its columns are: x, n"):
        scan(table, label="class")


def test_a_parameter_is_taken_by_name_and_recorded(table):
    parameters = {"exact_overlap": {"duplicates_warning": 0.5}}
    result = scan(table, EXACT, parameters=parameters)
    assert result.checks[0]["parameters"]["duplicates_warning"] == 0.5


def test_an_unknown_parameter_is_refused_with_the_names_there_are(table):
    with pytest.raises(UserError, match="'exact_overlap' has no parameter 'treshold'; its parameters are"):
        scan(table, EXACT, parameters={"exact_overlap": {"treshold": 1}})


def test_comparing_without_the_tenants_key_is_a_programming_error(table):
    context = CheckContext(schema=table.schema, baseline=Registered("acme/set@1", table))
    with pytest.raises(ValueError, match="row key"):
        scan_source(open_source(table), context, row_key=None, available=((), ()))


@dataclass(frozen=True)
class Failing:
    """A check that breaks on data, with the data in its error."""

    name = "failing"
    version = "1"
    rule_ids = ("QUAL500",)
    needs = frozenset()

    def applies(self, context):
        return None

    def start(self, context):
        return self

    def update(self, batch, first_row, hashes, feature_hashes):
        raise RuntimeError("cannot digest 'secret-cell'")

    def merge(self, other):
        raise NotImplementedError

    def finish(self):
        yield Finding(rule_id="QUAL500", severity=Severity.INFO, message="never reached")


def test_a_check_that_fails_is_a_critical_finding_and_quotes_no_cell(table):
    result = scan(table, Failing())
    assert [f.rule_id for f in result.findings] == ["QUAL099"]
    assert result.findings[0].severity is Severity.CRITICAL
    assert result.checks[0]["skipped"].startswith("failed: RuntimeError at test_scan.py:")
    written = json.dumps([result.findings[0].to_json(), *result.checks])
    assert "secret-cell" not in written


def test_a_check_that_cannot_be_loaded_is_on_record(table):
    context = CheckContext(schema=table.schema)
    available = ((SCHEMA,), (Broken("theirs", "ImportError: no module named absent"),))
    result = scan_source(open_source(table), context, row_key=KEY, available=available)
    assert result.checks[1]["skipped"] == "could not be loaded: ImportError: no module named absent"


def test_a_check_asked_for_by_name_must_load(table):
    context = CheckContext(schema=table.schema)
    available = ((SCHEMA,), (Broken("theirs", "ImportError: no module named absent"),))
    with pytest.raises(UserError, match="'theirs' could not be loaded"):
        scan_source(open_source(table), context, row_key=KEY, checks=["theirs"], available=available)


def test_two_scans_of_the_same_data_say_the_same(table):
    doubled = pa.concat_tables([table, table.slice(0, 50)])
    first, second = scan(doubled, EXACT, label="label"), scan(doubled, EXACT, label="label")
    assert [f.to_json() for f in first.findings] == [f.to_json() for f in second.findings]
    assert first.profile == second.profile


def test_all_checks_of_this_distribution_load():
    checks, broken = discover()
    assert broken == ()
    assert {"exact_overlap", "schema"} <= {c.name for c in checks}
