"""The page: every number there, hostile text harmless, nothing fetched, a partial run no problem."""

from __future__ import annotations

import math
import re
from collections import Counter
from xml.etree import ElementTree

import pytest
from example_results import EVIL, begun, items, results

from moltlm.pipeline.reporting import plots, report


@pytest.fixture(scope="module")
def page() -> str:
    return report.render(results())


def section(page: str, name: str) -> str:
    found = re.search(rf'<section aria-labelledby="{name}">.*?</section>', page, re.DOTALL)
    assert found, name
    return found.group()


@pytest.mark.parametrize(
    ("name", "texts"),
    {
        "verdicts": [
            "<span>blue</span>",
            "not promoted",
            "−4.0 points",
            "inconclusive",
            "−13.1 to +17.4",
            "11.5<",
            "positive control",
            "By kl: it tells more",
            "Yes: capability falls from there on.",
            "Rank 16: about 504 bits",
            "Rank 4: 0 of 2 seeds lose 3 points of LAMBADA, too few",
            '<th scope="row">16</th><td>256</td><td>1,434',
            "+1.7",
            "−0.012",
            "Taken: 0.0008",
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
            "agrees on 90 in 100",
            "50 in 100",
        ],
        "tasks": ["82<", "70 to 89", "87<", "expected"],
        "capability": [
            "33<",
            "−0.8",
            "41.5",
            "mean of the changes",
            "within ±5 points: not resolved",
            "could have been seen",
            "0.330",
        ],
        "answers": ["coherent: <b>no</b>", "style 0.85", "no replay"],
        "training": ["4,884,480", "482", "64 of 118", "38.2 words", "is 0.81, against 0.62"],
        "methods": ["same nf4 base", "All arms on one bf16 base (H014)", "What is not shown"],
        "reproduce": ["molt report mine.yaml", "folder: runs/demo", "2.9.1"],
    }.items(),
)
def test_each_section_holds_its_numbers(page: str, name: str, texts: list[str]) -> None:
    for text in texts:
        assert text in section(page, name), text


def test_the_first_paragraph_is_made_of_the_numbers(page: str) -> None:
    story = re.search(r'<p class="story">(.*?)</p>', page, re.DOTALL)
    assert story
    plain = re.sub(r"<.*?>", "", story.group(1))
    for text in (
        "of 100 answers 85 (71 to 93) are coherent and taken for Cláudio by a style classifier",
        "from the untouched base, 2 (0 to 13)",
        "reminders, from 0 (0 to 6) to 82 (70 to 89) and shell, from",
        "with replay changed the persona score by −5.0 points (−15.1 to +5.1), which could be no change; without replay",
        "so replay kept 91% (83 to 99) of what is lost without it",
        "−0.8 (−3.0 to +1.3) for the personality alone",
        "Taken singly, the interval of piqa is below zero in 2 of 3 states and the interval of lambada is below zero in 2",
        "The gate: personality promoted; shell not promoted (persona unresolved).",
        "H014 and H015 are inconclusive.",
    ):
        assert text in plain, text


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


@pytest.mark.parametrize("part", [key for key in results() if key not in begun()])
def test_any_part_may_be_absent(part: str) -> None:
    without = {key: value for key, value in results().items() if key != part}
    assert "<h2" in report.render(without)
    assert report.summary(without)


def test_states_may_be_half_measured() -> None:
    found = results()
    del found["states"][1]["capability"], found["states"][2]["persona"], found["states"][2]["drift"]
    page = report.render(found)
    assert "with reminders" in section(page, "capability")
    assert report.summary(found)


def test_what_cannot_be_told_is_said_to_be_unknown() -> None:
    """One seed has no spread, runs without common gain no difference; a file has null for both."""
    found = results()
    one = found["hypotheses"][0]["comparisons"][0]
    one |= {"difference": None, "low": None, "high": None, "detectable": None, "values": []}
    found["hypotheses"][0]["gain_levels"] = []
    found["retention"][0]["retained"] |= {"low": math.nan, "high": math.nan}
    page = report.render(found)
    assert "interval unknown" in section(page, "verdicts")
    assert "91% (interval unknown)" in page
    assert not re.search(r"\b(nan|inf)\b", page)


def test_protection_is_not_claimed_where_nothing_was_lost() -> None:
    found = results()
    found["retention"][0] |= {"control_lost_enough": False, "control_change": items(2, 0, 40, 34)}
    text = " ".join([report.render(found), *report.summary(found)])
    assert "too little to say" in text
    assert "replay kept" not in text.lower()


def test_a_task_that_passes_waits_for_the_personality() -> None:
    found = results()
    found["gates"]["personality"]["promoted"] = False
    found["gates"]["shell"] = {"promoted": True, "checks": []}
    assert "shell passed, but waits for the personality" in " ".join(report.summary(found))
    assert "Passed, but waits for the personality" in section(report.render(found), "verdicts")


def test_the_summary_is_plain() -> None:
    lines = report.summary(results())
    assert 6 <= len(lines) <= 15
    assert lines[0].startswith("persona: taken for Cláudio and coherent, of 100 (n=40): base 2 (0 to 13), ")
    assert (
        "task reminders: exact match 0 (0 to 6) before, 82 (70 to 89) after, 87 (76 to 93) without replay; floor 50, n=60"
        in lines
    )
    assert "gate: personality promoted; shell not promoted (persona unresolved)" in lines
    assert "paths: personality red, reminders red, shell grey, reminders-control blue" in lines
    assert lines[-4].startswith("H015: inconclusive. dpo - sft")
    assert (
        lines[-3].startswith("explored, ")
        and "early sign of forgetting kl; threshold of KL to the base at" in lines[-3]
    )
    assert [line.split(",")[:2] for line in lines[-2:]] == [["new knowledge", " rank 4"], ["new knowledge", " rank 16"]]
    assert report.summary(begun()) == ["missing: pairs has not been run with these settings."]
