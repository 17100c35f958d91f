"""The page: every number there, hostile text harmless, nothing fetched, a partial run no problem."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from example_results import EVIL, begun, items, results

from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, to_json
from moltlm.evals import stats
from moltlm.pipeline.reporting import plots, report, story
from moltlm.pipeline.reporting.results import Results, load_results, write_results
from moltlm.pipeline.reporting.text import PATHS
from moltlm.pipeline.typed_json import to_plain

COMMITTED = Path(__file__).resolve().parent.parent / "docs" / "results"
PARTS = [part.name for part in fields(Results) if getattr(results(), part.name) != getattr(begun(), part.name)]


@pytest.fixture(scope="module")
def page() -> str:
    return report.render(results())


def section(page: str, name: str) -> str:
    match = re.search(rf'<section aria-labelledby="{name}">.*?</section>', page, re.DOTALL)
    assert match, name
    return match.group()


@pytest.mark.parametrize(
    ("name", "texts"),
    {
        "verdicts": [
            "red path (learned, nothing lost)",
            "blue path (learned, something lost: forgetting)",
            "not promoted",
            "−4.0 points",
            "inconclusive",
            "−13.10 to +17.40",
            "11.50<",
            "positive control",
            "Yes, by kl: it predicts more",
            "Yes: capability falls from there on.",
            "Rank 16: about 504 bits",
            "Rank 4: 0 of 2 seeds lose 3 points of LAMBADA, too few",
            '<th scope="row">16</th><td>256</td><td>1,434',
            "+1.70",
            "−0.01<",
            "Confirmed: 0.0008",
            "of the score (0 to 1)",
        ],
        "persona": [
            "85<",
            "71 to 93",
            "1 to 17",
            "<strong>91%</strong>",
            "0.981",
            "6.2%",
            "as an",
            "74%",
            "−2.1 points a turn",
            "own traits preferred",
            "wry",
            "+0.15 (+0.05 to +0.25) of\n+0.20",
            "0.41",
            "agrees with them on 90 in 100",
            "50 in 100",
        ],
        "tasks": ["82<", "70 to 89", "87<", "expected"],
        "capability": [
            "33<",
            "−0.8",
            "41.5",
            "mean of the changes",
            "within ±5 points: not resolved",
            "detectable with 80% power",
            "0.330",
        ],
        "answers": ["coherent: <b>no</b>", "style 0.85", "no replay"],
        "training": [
            "4,884,480",
            "482",
            "64 of 118",
            "38.2 words",
            "the data gave it in 17",
            "corrected by the user in 4",
            "103 of the pairs",
            "is 0.81, against 0.62",
        ],
        "methods": ["same nf4 base", "All arms on one bf16 base (H014)", "Limits."],
        "reproduce": ["molt report mine.yaml", "folder: runs/demo", "2.9.1"],
    }.items(),
)
def test_each_section_holds_its_numbers(page: str, name: str, texts: list[str]) -> None:
    for one in texts:
        assert one in section(page, name), one


def test_the_first_paragraph_is_made_of_the_numbers(page: str) -> None:
    paragraph = re.search(r'<p class="story">(.*?)</p>', page, re.DOTALL)
    assert paragraph
    plain = re.sub(r"<.*?>", "", paragraph.group(1))
    for one in (
        "of 100 answers 85 (71 to 93) are coherent and taken for Cláudio by a style classifier",
        "from the untouched base, 2 (0 to 13)",
        "reminders, from 0 (0 to 6) to 82 (70 to 89) and shell, from",
        "with replay changed the persona score by −5.0 points (−15.1 to +5.1), which could be no change; without replay",
        "so replay kept 91% (83 to 99) of what is lost without it",
        "−0.8 (−3.0 to +1.3) for the personality alone",
        "Of the single benchmarks, the interval of piqa is below zero in 2 of 3 states and the interval of lambada is below zero in 2",
        "The gate: personality promoted; shell not promoted (persona unresolved).",
        "H014 and H015 are inconclusive.",
    ):
        assert one in plain, one


def test_hostile_text_is_shown_as_text(page: str) -> None:
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20


def test_hostile_names_stay_text_in_figures() -> None:
    name = f'{EVIL}--><b>" onload="x $a_b$'
    drawn = ElementTree.fromstring(plots.forest(EVIL, [plots.Row(name, 1, 0, 2)], EVIL))
    assert not [node for node in drawn.iter() if node.tag.endswith(("script", "}b"))]
    assert not [key for node in drawn.iter() for key in node.attrib if key.startswith("on")]
    assert name in [node.text for node in drawn.iter()]


def test_nothing_is_fetched(page: str) -> None:
    for target in re.findall(r"""(?:\bsrc|\bhref|\bdata|\bposter|\baction)\s*=\s*["']([^"']*)|url\(([^)]*)""", page):
        assert "".join(target).startswith("#"), target
    namespaces = re.sub(r'xmlns(?::xlink)?="http://www\.w3\.org/[^"]*"', "", page)
    assert "http://" not in namespaces and "https://" not in namespaces
    assert "@import" not in page and "<link" not in page


def test_figures_are_named_and_no_id_is_used_twice(page: str) -> None:
    assert page.count("<svg ") == page.count('<svg role="img" aria-label="') == 26
    assert [name for name, count in Counter(re.findall(r'\bid="([^"]+)"', page)).items() if count > 1] == []
    targets = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert targets <= set(re.findall(r'\bid="([^"]+)"', page))


def test_the_same_results_give_the_same_page(page: str) -> None:
    assert report.render(results()) == page


def test_a_run_that_has_just_begun_has_a_page_too() -> None:
    page = report.render(begun())
    assert "Nothing has been measured yet." in page
    assert "pairs has not been run with these settings." in section(page, "missing")
    assert "<svg" not in page and "None" not in page


@pytest.mark.parametrize("part", PARTS)
def test_any_part_may_be_absent(part: str) -> None:
    without = replace(results(), **{part: getattr(begun(), part)})
    assert "<h2" in report.render(without)
    assert story.summary(without)


def test_states_may_be_half_measured() -> None:
    full = results()
    base, personality, reminders, *others = full.states
    half = [base, replace(personality, capability={}), replace(reminders, persona=None, drift={}), *others]
    page = report.render(replace(full, states=half))
    assert "with reminders" in section(page, "capability")
    assert story.summary(replace(full, states=half))


def test_what_is_unknown_is_called_unknown() -> None:
    """One seed has no spread, runs without common gain no difference; a file has null for both."""
    full = results()
    first, *others = full.hypotheses
    unknown = {"difference": math.nan, "low": math.nan, "high": math.nan, "detectable": math.nan, "values": []}
    first = replace(first, comparisons=[replace(first.comparisons[0], **unknown)], gain_levels=[])
    retention = replace(full.retention[0], retained=replace(full.retention[0].retained, low=math.nan, high=math.nan))
    page = report.render(replace(full, hypotheses=[first, *others], retention=[retention]))
    assert "interval unknown" in section(page, "verdicts")
    assert "91% (interval unknown)" in page
    assert not re.search(r"\b(nan|inf)\b", page)


def test_protection_is_not_claimed_where_nothing_was_lost() -> None:
    full = results()
    row = replace(full.retention[0], control_lost_enough=False, control_change=items(2, 0, 40, 34))
    full = replace(full, retention=[row])
    lines = " ".join([report.render(full), *story.summary(full)])
    assert "too little to say" in lines
    assert "replay kept" not in lines.lower()


def test_a_task_that_passes_waits_for_the_personality() -> None:
    full = results()
    gates = {
        "personality": replace(full.gates["personality"], promoted=False),
        "shell": replace(full.gates["shell"], promoted=True, checks=[]),
    }
    full = replace(full, gates=gates)
    assert "shell passed, but waits for the personality" in " ".join(story.summary(full))
    assert "Passed, but waits for the personality" in section(report.render(full), "verdicts")


def test_the_summary_is_plain() -> None:
    lines = story.summary(results())
    assert 6 <= len(lines) <= 15
    assert lines[0].startswith("persona: taken for Cláudio and coherent, of 100 (n=40): base 2 (0 to 13), ")
    assert (
        "task reminders: exact match 0 (0 to 6) before, 82 (70 to 89) after, 87 (76 to 93) without replay; floor 50, n=60"
        in lines
    )
    assert "gate: personality promoted; shell not promoted (persona unresolved)" in lines
    assert (
        "paths: personality: red path (learned, nothing lost); reminders: red path (learned, nothing lost); "
        "shell: grey path (not decided by these items, or nothing learned and nothing lost); "
        "reminders-control: blue path (learned, something lost: forgetting)"
    ) in lines
    assert lines[-4].startswith("H015: inconclusive. dpo - sft")
    assert (
        lines[-3].startswith("explored, ")
        and "early sign of forgetting kl; threshold of KL to the base at" in lines[-3]
    )
    assert [line.split(",")[:2] for line in lines[-2:]] == [["new knowledge", " rank 4"], ["new knowledge", " rank 16"]]
    assert story.summary(begun()) == ["missing: pairs has not been run with these settings."]


def test_no_colour_stands_without_its_meaning(page: str) -> None:
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<pre.*?</pre>|<[^>]*>", " ", page, flags=re.DOTALL)
    for output in (body, report.markdown(results()), "\n".join(story.summary(results()))):
        for colour, meaning in PATHS.items():
            without = output.replace(f"{colour} path ({meaning})", "")
            assert not re.search(rf"\b{colour}\b", without, re.IGNORECASE), colour


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    for number, written in enumerate((results(), begun())):
        path = tmp_path / f"{number}.json"
        write_results(path, written)
        assert json.loads(to_json(to_plain(load_results(path)))) == json.loads(path.read_text())
        assert report.render(load_results(path)) == report.render(written)


@pytest.mark.parametrize(
    "name", ["demo.json", "second-model.json", "evidence.json", "control.json", "odile.json", "qwen.json"]
)
def test_the_committed_results_are_read_without_loss(name: str, tmp_path: Path) -> None:
    write_results(tmp_path / name, load_results(COMMITTED / name))
    assert (tmp_path / name).read_text(encoding="utf-8") == (COMMITTED / name).read_text(encoding="utf-8")


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    """But for the lines of the figures, which depend on the version of matplotlib."""
    evidence = load_results(COMMITTED / "evidence.json")
    drawing = re.compile(r"<svg[^>]*(aria-label=\"[^\"]*\").*?</svg>", re.DOTALL)
    page = (COMMITTED / "evidence.html").read_text(encoding="utf-8")
    assert drawing.sub(r"\1", report.render(evidence)) == drawing.sub(r"\1", page)
    assert report.markdown(evidence) == (COMMITTED / "evidence.md").read_text(encoding="utf-8")


def test_null_is_an_unknown_bound_and_an_absent_part_is_empty(tmp_path: Path) -> None:
    full = results()
    first = full.states[0]
    assert first.persona
    one = replace(first, persona=replace(first.persona, score=stats.mean([0.5])))  # of one value
    path = tmp_path / "results.json"
    write_results(path, replace(full, states=[one]))
    raw = read_json(path)
    assert raw["states"][0]["persona"]["score"]["low"] is None
    del raw["states"][0]["drift"], raw["judge"]
    path.write_text(json.dumps(raw))
    loaded = load_results(path)
    assert loaded.states[0].persona and math.isnan(loaded.states[0].persona.score.low)
    assert loaded.states[0].drift == {} and loaded.judge is None
    assert "interval unknown" in section(report.render(loaded), "persona")


@pytest.mark.parametrize(
    ("place", "value"),
    [(("seed",), "0"), (("states", 0, "persona", "n"), 1.5), (("states", 0, "persona", "score", "mean"), "0.5")],
)
def test_a_value_of_a_wrong_type_is_named(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    path = tmp_path / "results.json"
    write_results(path, results())
    raw = read_json(path)
    node = raw
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    path.write_text(json.dumps(raw))
    with pytest.raises(BadInput, match=re.escape(".".join(map(str, place)))):
        load_results(path)
