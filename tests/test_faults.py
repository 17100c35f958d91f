"""A cycle that runs into a fault, of each kind: what is in use is whole, and the next cycle ends the same."""

from __future__ import annotations

import faults
import pytest
from fault_study import EQUAL, ROUNDED, TRACEBACK, Row, Study

ROWS = faults.read_rows()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.parametrize("name", faults.FAULTS)
def test_a_cycle_survives_a_fault(study: Study, name: str) -> None:
    """Each kind once or twice; `benchmarks/faults.py` makes as many as the page says."""
    make, times = faults.FAULTS[name]
    study.rows.clear()
    make(study, min(times, 2))
    for row in study.rows:
        check(row)


def check(row: Row) -> None:
    ends = row.first + row.then
    assert row.times == row.first.total() == row.then.total(), row
    assert row.whole == row.times or row.fault in faults.IN_USE, row
    assert not ends[TRACEBACK], row
    if row.fault not in faults.LASTING:
        assert set(row.then) <= {EQUAL, ROUNDED}, row


@pytest.mark.parametrize("row", ROWS, ids=[row.fault for row in ROWS])
def test_the_committed_faults_ended_as_the_page_says(row: Row) -> None:
    check(row)


def test_the_page_shows_the_committed_figures() -> None:
    text = faults.PAGE.read_text(encoding="utf-8")
    assert all(line in text for line in faults.table(ROWS))
