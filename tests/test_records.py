"""Records survive a file, the committed evidence among them, and are paired by key only."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from moltlm.data.errors import BadInput, MoltError
from moltlm.evals.records import (
    BasePoint,
    CheckpointRecord,
    ItemRecord,
    Record,
    TaskRecord,
    pair,
    paired_values,
    read_records,
    write_records,
)

EVIDENCE = Path(__file__).parents[1] / "docs" / "results" / "evidence"
ITEMS = [ItemRecord(benchmark="arc_easy", item=number, correct=number % 2, chance=0.25) for number in range(6)]


@pytest.mark.parametrize("archive", sorted(EVIDENCE.glob("job-*.tar.xz")), ids=lambda path: path.name)
def test_committed_evidence_is_read_and_written_without_loss(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as files:
        source = files.extractfile("records.jsonl")
        assert source is not None
        text = source.read().decode()
    (tmp_path / "records.jsonl").write_text(text)
    kind: type[Record] = BasePoint if archive.name.startswith("job-base") else CheckpointRecord
    records = read_records(tmp_path / "records.jsonl", kind)
    assert len({record.key for record in records}) == len(records) > 0
    write_records(tmp_path / "again.jsonl", records)
    written, original = (
        [json.loads(line) for line in content.split("\n") if line]
        for content in ((tmp_path / "again.jsonl").read_text(), text)
    )
    assert written == original


def test_defaults_are_left_out_and_other_keys_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [TaskRecord(item=0, prompt="p", correct=1)])
    assert json.loads(path.read_text()) == {"item": 0, "prompt": "p", "correct": 1}
    assert read_records(path, TaskRecord) == [TaskRecord(item=0, prompt="p", correct=1)]
    path.write_text('{"item": 0, "prompt": "p", "correct": 1, "rank": 2}\n')
    with pytest.raises(BadInput, match=r"record 1: unknown key rank in a row of TaskRecord"):
        read_records(path, TaskRecord)


def test_order_does_not_matter_and_other_items_are_refused() -> None:
    assert pair(ITEMS, ITEMS[::-1]) == [(item, item) for item in ITEMS]
    before, after = paired_values(ITEMS, ITEMS[::-1], lambda record: record.correct)
    assert before == after == [0, 1, 0, 1, 0, 1]
    with pytest.raises(MoltError, match=r"1 are in one of them only \(arc_easy/5\)"):
        pair(ITEMS, ITEMS[:5])
    with pytest.raises(MoltError, match="arc_easy/0 2 times"):
        pair(ITEMS, [*ITEMS, ITEMS[0]])
