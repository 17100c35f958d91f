"""The report as Markdown: the same numbers as on the page, well-formed tables, hostile names harmless."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest
from example_results import EVIL, begun, results

from moltlm.pipeline.reporting import report
from moltlm.pipeline.reporting.results import Results

PARTS = [part.name for part in fields(Results) if getattr(results(), part.name) != getattr(begun(), part.name)]


def tables(text: str) -> list[list[str]]:
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE)
    return [block.strip().splitlines() for block in blocks]


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row))


def test_every_part_has_its_table_and_each_row_as_many_cells_as_its_head() -> None:
    text = report.markdown(results())
    heads = [table[0] for table in tables(text)]
    for head in ("nats of LAMBADA", "predictor", "rank", "state", "task", "benchmark", "texts", "scale"):
        assert any(one.startswith(f"| {head} |") for one in heads), head
    for table in tables(text):
        assert len(table) > 2 and {cells(row) for row in table} == {cells(table[0])}
    for part in (
        "### H014: ",
        "### H015: ",
        "**Gate, shell**: not promoted",
        "| with reminders | 40 | 80 (72 to 88) |",
    ):
        assert part in text
    assert "\n\n\n" not in text and "None" not in text


def test_what_a_model_wrote_is_left_out_and_names_are_no_markup() -> None:
    text = report.markdown(replace(results(), persona=f"A|B *c* [d](e) {EVIL}"))
    assert "Poke it" not in text
    assert r"A\|B \*c\* \[d\](e) \<script\>" in text and "<script" not in text.replace(r"\<", "")
    assert {cells(row) for table in tables(text) for row in table} >= {8}


@pytest.mark.parametrize("part", PARTS)
def test_any_part_may_be_absent_here_too(part: str) -> None:
    assert report.markdown(replace(results(), **{part: getattr(begun(), part)})).startswith("# ")


def test_a_run_that_has_just_begun_says_what_is_missing() -> None:
    text = report.markdown(begun())
    assert "Nothing has been measured yet." in text and "- pairs has not been run" in text
