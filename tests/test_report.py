"""The page: every number there, hostile text harmless, nothing fetched."""

from __future__ import annotations

import re
from typing import Any

from pipeline import report

EVIL = '<script>alert("x")</script>'


def estimate(mean: float) -> dict[str, float]:
    return {"n": 40, "mean": mean, "low": mean - 0.05, "high": mean + 0.05}


def change(value: float) -> dict[str, float]:
    found = {
        "n": 40,
        "before": 0.5,
        "after": 0.5 + value,
        "difference": value,
        "low": value - 0.05,
        "high": value + 0.05,
    }
    return {**found, "p": 0.2, "lost": 3, "gained": 1, "detectable": 0.07, "error": 0.02, "df": 39}


def state(name: str, score: float) -> dict[str, Any]:
    persona: dict[str, Any] = {
        key: estimate(score) for key in ("score", "taken", "coherent", "win_rate", "margin", "base_nll")
    }
    ability = {"n": 100, "accuracy": estimate(0.4), "change": change(-0.02), "perplexity": 44.0}
    return {
        "name": name,
        "persona": {**persona, "n": 40, "echo": 0.0, "repetition": 0.05, "words": 31.0},
        "kl": estimate(0.3),
        "capability": {"lambada": ability},
    }


def results() -> dict[str, Any]:
    states = [state("base", 0.1), state("personality", 0.9), state("personality+shell", 0.85)]
    check = {"name": "persona", "n": 40, "difference": -2.0, "low": -6.0, "high": 2.0, "margin": 10.0}
    comparison = {
        "better": "lora",
        "than": "full",
        "seeds": [1, 2],
        "values": [1.0, 3.0],
        "items": 100,
        "difference": 2.0,
    }
    return {
        "model": "tiny",
        "precision": "nf4",
        "persona": "Cláudio",
        "seed": 0,
        "config": {},
        "environment": {},
        "states": states,
        "tasks": [
            {
                "name": "shell",
                "n": 60,
                "floor": 0.5,
                "before": estimate(0.0),
                "after": estimate(0.8),
                "control": estimate(0.82),
                "change": change(0.8),
                "examples": [{"prompt": EVIL, "answer": EVIL, "expected": "ls", "correct": 0}],
            }
        ],
        "retention": [
            {
                "task": "shell",
                "n": 40,
                "control_change": change(-0.4),
                "replay_change": change(-0.05),
                "retained": estimate(0.87),
                "control_reached_floor": True,
                "control_lost_enough": True,
            }
        ],
        "gates": {
            "shell": {
                "promoted": False,
                "checks": [{**check, "outcome": "unresolved", "needed_n": 90, "sentence": "persona: -2.0 points"}],
            }
        },
        "paths": [{"stage": "shell", "colour": "grey", "reason": "not resolved"}],
        "samples": [
            {
                "question": EVIL,
                "topic": "x",
                "answers": {"base": {"answer": EVIL, "probability": 0.1, "coherent": False, "score": 0.0}},
            }
        ],
        "training": [
            {
                "name": "personality",
                "seconds": 1.0,
                "trainable_parameters": 1000,
                "frozen_tensors_unchanged": 9,
                "trainable_tensors_moved": 28,
                "curve": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}],
            }
        ],
        "classifier": {
            "cross_validation": {"n": 200, "accuracy": 0.9, "auroc": 0.97, "brier": 0.1, "length_only_auroc": 0.5},
            "heldout": estimate(0.95),
            "weights": {"ours": ["it's"], "theirs": ["as an"]},
        },
        "hypotheses": [
            {
                "id": "H014",
                "claim": "LoRA keeps more",
                "outcome": "inconclusive",
                "reasons": ["not decided"],
                "margin": 3.0,
                "precision": "bf16",
                "gain_levels": [0.3],
                "comparisons": [
                    {
                        **comparison,
                        "low": -9.0,
                        "high": 13.0,
                        "detectable": 12.0,
                        "naive": {"difference": 1.0, "low": -5.0, "high": 7.0},
                    }
                ],
                "curves": [{"arm": "lora", "seed": 1, "points": [{"step": 0, "gain": 0.0, "accuracy": 0.3}]}],
            }
        ],
        "missing": [],
    }


def test_the_page_holds_the_numbers() -> None:
    page = report.render(results())
    for text in (
        "90 (85 to 95)",
        "H014: inconclusive",
        "-2.0 points",
        "87 (82 to 92)",
        "could have been seen",
        "nf4 base",
    ):
        assert text in page
    assert page.count("<svg") == 7


def test_hostile_text_is_shown_as_text() -> None:
    page = report.render(results())
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_nothing_is_fetched() -> None:
    page = report.render(results())
    assert not re.findall(r"(?:src|href)=[\"'](?!#)[^\"']+|url\((?!#)", page.replace("xlink:href", "xlink-href"))
    assert "@import" not in page


def test_the_same_results_give_the_same_page() -> None:
    assert report.render(results()) == report.render(results())


def test_a_run_that_has_just_begun_has_a_page_too() -> None:
    begun = {key: results()[key] for key in ("model", "precision", "persona", "seed", "config", "environment")}
    page = report.render({**begun, "missing": ["pairs has not been run"]})
    assert "Not measured in this run" in page
    assert "pairs has not been run" in page


def test_the_summary_is_plain() -> None:
    lines = report.summary(results())
    assert any("replay kept 87% (82 to 92) of the 40.0 points" in line for line in lines)
    assert "gate, shell: not promoted (persona not passed)" in lines
    assert "H014: inconclusive" in lines
