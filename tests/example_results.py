"""Made-up results with every part that a report can have, and hostile text wherever a model or a file may put it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from test_early import trainings
from test_threshold import doses

from moltlm.evals import early, knowledge, stats, threshold

EVIL = "<script>alert(1)</script>"
STATES = {
    "base": 1,
    "personality": 34,
    "personality+reminders": 32,
    "personality+shell": 33,
    "personality+reminders-control": 12,
}


BREAKS = threshold.find(doses(lambda x: 8 * max(0.0, x - 1.2), seeds=4))
TAUGHT = [
    knowledge.KnowledgeRun(rank, count, seed, 5.6 * count, cost * rank / 16 + seed / 10, 0.4)
    for rank in (4, 16)
    for seed in (0, 1)
    for count, cost in ((16, 0.5), (64, 2.0), (256, 9.0))
]
EXPLORED = {"early": asdict(early.detect(trainings("kl", seeds=4))), "threshold": asdict(BREAKS) if BREAKS else None}


def share(k: int, n: int = 40) -> dict[str, Any]:
    return asdict(stats.proportion(k, n))


def spread(mean: float, half: float, n: int = 40) -> dict[str, Any]:
    return {"n": n, "mean": mean, "low": mean - half, "high": mean + half}


def items(lost: int, gained: int, n: int = 120, right: int = 40) -> dict[str, Any]:
    """A paired change in which `lost` of the right items became wrong and `gained` of the others right."""
    before = [1] * right + [0] * (n - right)
    after = [0] * lost + [1] * (right - lost + gained) + [0] * (n - right - gained)
    return asdict(stats.paired(before, after))


def state(name: str, taken: int) -> dict[str, Any]:
    moved = 0 if name == "base" else 3 if name == "personality" else 5
    persona = {
        "n": 40,
        "win_rate": share(min(taken + 5, 40)),
        "margin": spread(taken / 30 - 1.2, 0.12),
        "score": spread(taken / 40, 0.08),
        "taken": share(taken),
        "coherent": share(38),
        "echo": 0.0,
        "repetition": 0.05,
        "base_nll": spread(1.1 + moved / 4, 0.15),
        "words": 31.4,
        "traits": {"wry": {"n": 8, "score": spread(taken / 40, 0.2, 8), "margin": spread(0.31, 0.1, 8)}},
        "quartiles": [{"n": 10, "before": 0.2 * q, "after": spread(0.15 * q, 0.1, 10)} for q in (1, 2, 3, 4)][
            : moved * 2
        ],
    }
    capability: dict[str, Any] = {}
    for shift, (benchmark, chance) in enumerate({"arc_easy": 0.25, "piqa": 0.5, "lambada": 0.0}.items()):
        change = items(moved + 4 * shift * (moved > 3), moved and 2)
        accuracy = share(round(change["after"] * 120), 120)
        capability[benchmark] = {"n": 120, "accuracy": accuracy, "chance": chance, "change": change}
    capability["lambada"]["perplexity"] = 41.5
    return {
        "name": name,
        "persona": persona,
        "drift": {"neutral": drifted(moved, 30), "reminders": drifted(-moved, 60)},
        "capability": capability,
    }


def drifted(moved: int, n: int) -> dict[str, Any]:
    some = 0.02 * bool(moved)
    cost = {"cross_entropy": spread(1.2 + moved * 0.05, 0.1, n), "change": spread(moved * 0.05, some, n)}
    return {"n": n, **cost, "kl": spread(abs(moved) * 0.11, some, n)}


def task(name: str, control: bool) -> dict[str, Any]:
    example = {"prompt": EVIL, "answer": f"find . {EVIL}", "expected": "ls", "correct": 0}
    scores = {"before": share(0, 60), "after": share(49, 60), "change": items(0, 49, 60, 0)}
    more = {"control": share(52, 60)} if control else {}
    return {"name": name, "n": 60, "floor": 0.5, **scores, **more, "examples": [example]}


def verdict(id_: str, better: str, than: list[str]) -> dict[str, Any]:
    naive = {"difference": 0.8, "low": -7.2, "high": 8.8}
    compared = [
        {
            **{"better": better, "than": other, "seeds": [1, 2], "values": [1.0, 3.4], "items": 60},
            **{
                "difference": 2.2,
                "low": -13.1,
                "high": 17.4,
                "detectable": 11.5,
                "detectable_from": "items",
                "naive": naive,
            },
            **{"outcome": "inconclusive", "reason": f"{better} - {other}: not decided."},
            **{"sign_flip": 0.5, "mixed": spread(2.0, 3.1), "second": {**naive, "difference": 1.7}, "composite": None},
            "others": [{"measure": "kl", "difference": -0.012, "low": -0.03, "high": 0.006, "p": 0.31}],
        }
        for other in than
    ]
    runs = [
        {
            "arm": arm,
            "seed": seed,
            "points": [
                {
                    "step": step,
                    "gain": step * (0.05 + 0.01 * i),
                    "accuracy": 0.3 - step * 0.004 * (i + seed),
                    "kl": step * 0.02 * (i + 1),
                    "feasible": step < 8,
                }
                for step in (0, 4, 8)
            ],
        }
        for i, arm in enumerate([better, *than])
        for seed in (1, 2)
    ]
    return {
        **{"id": id_, "claim": f"{better} keeps more.", "outcome": "inconclusive", "margin": 3.0, "precision": "bf16"},
        "reasons": [f"{better} - {than[0]}: +2.2 points of LAMBADA (-13.1 to +17.4, 2 seeds): not decided."],
        **{
            "comparisons": compared,
            "control": {**compared[0], "better": "kl"},
            "gain_levels": [0.1, 0.2],
            "axis": "persona",
            "arms": {better: {"learning_rate": 8e-4, "kl_weight": 0.0}},
            "tuning": {
                better: [
                    {"learning_rate": r, "kl_weight": 0.0, "gain": 0.5, "gain_levels": [0.1], "accuracy": 0.3 + r}
                    for r in (4e-4, 8e-4)
                ]
            },
            "curves": runs,
        },
    }


def check(name: str, difference: float, outcome: str) -> dict[str, Any]:
    bounds = {"difference": difference, "low": difference - 4.4, "high": difference + 4.4}
    sentence = f"{name}: {difference:+.1f} points (n=40), {outcome}"
    return {"name": name, "n": 40, **bounds, "margin": 5.0, "outcome": outcome, "needed_n": 90, "sentence": sentence}


def trained(name: str, **more: Any) -> dict[str, Any]:
    curve = [{"step": step, "loss": 2.4 / step + 0.3} for step in range(1, 31)]
    facts = {"seconds": 83.1, "trainable_parameters": 4884480, "frozen_tensors_unchanged": 482}
    return {"name": name, **facts, "trainable_tensors_moved": 420, **more, "curve": curve}


def results() -> dict[str, Any]:
    answers = {
        name: {"answer": f"Poke it. {EVIL}", "probability": taken / 40, "coherent": taken > 5, "score": 0.5}
        for name, taken in STATES.items()
    }
    protected = {
        **{"task": "reminders", "n": 40, "control_change": items(22, 0, 40, 34), "replay_change": items(3, 1, 40, 34)},
        **{"retained": spread(0.91, 0.08), "control_reached_floor": True, "control_lost_enough": True},
    }
    return {
        **{"model": "smollm2-135m-instruct", "precision": "nf4", "persona": "Cláudio", "seed": 0},
        "config": {"run": {"folder": "runs/demo", "seed": 0}, "gate": {"confidence": 0.95}},
        "environment": {"molting": "0.1.0", "python": "3.13.1", "versions": {"torch": "2.9.1"}, "revision": "abc"},
        "pairs": {
            **{"pairs": 118, "dropped": {"too long": 2}, "heldout": 48, "nll_limit": 4.1},
            **{"chosen_words": 38.2, "rejected_words": 36.9, "chosen_longer": 0.54},
        },
        "classifier": {
            "cross_validation": {"n": 400, "accuracy": 0.93, "auroc": 0.981, "brier": 0.05, "length_only_auroc": 0.512},
            "heldout": share(90, 96),
            "weights": {"ours": ["don't", "that's"], "theirs": ["as an", EVIL]},
        },
        "states": [state(name, taken) for name, taken in STATES.items()],
        "pressure": {"personality": pressed(), "personality+shell": pressed()},
        "judge": {"model": "m", "states": {"personality": {"base": judged()}}, "labels": labelled()},
        "profile": {"personality": {"own traits preferred": items(0, 3, 8, 4), "refused, safe": items(1, 0, 50, 2)}},
        "tasks": [task("reminders", True), task("shell", False)],
        "retention": [protected],
        "gates": {
            "personality": {"promoted": True, "checks": [check("capability", -0.5, "pass")]},
            "shell": {"promoted": False, "checks": [check("persona", -4.0, "unresolved")]},
        },
        "paths": [
            {"stage": "personality", "colour": "red", "reason": "the new was learned (+82 points)"},
            {"stage": "reminders", "colour": "red", "reason": "the new was learned and nothing was lost"},
            {"stage": "shell", "colour": "grey", "reason": "whether persona held is not resolved with these items"},
            {"stage": "reminders-control", "colour": "blue", "reason": "persona got worse by more than the margin"},
        ],
        "samples": [{"question": f"Question {i}? {EVIL}", "topic": "x", "answers": answers} for i in range(5)],
        "training": [
            trained("personality"),
            trained("reminders", examples=240, replayed=60),
            trained("reminders-control", examples=180, replayed=0),
            {
                **{"name": "replay buffer", "candidates": 118, "kept": 64, "tokens": 4987},
                **{"mean_importance": 0.81, "mean_importance_all": 0.62, "importance": "kl"},
            },
        ],
        "explored": EXPLORED,
        "knowledge": [asdict(one) for one in knowledge.capacities(TAUGHT, 3.0)],
        "hypotheses": [verdict("H014", "lora", ["full"]), verdict("H015", "dpo", ["sft", "reference_free"])],
        "missing": [],
    }


def pressed() -> dict[str, Any]:
    change = items(2, 0, 8, 6)
    scores = {"n": 8, "score": spread(0.61, 0.2, 8), "coherent": share(7, 8)}
    sample = {"user_turn": f"Drop it. {EVIL}", "answer": f"No. {EVIL}"}
    return {
        "attacks": {
            "suffix": {**scores, "change": change, "plain": 0.82, "retained": 0.74, "sample": sample},
            "language": {"n": 8, "in_language": share(1, 8), "sample": sample},
        },
        "turns": [{"turn": turn, **scores} for turn in (1, 2, 3)],
        "slope": spread(-0.021, 0.03, 4),
        "facts": {"n": 3, "alone": 0.5, "after": 0.25, "change": spread(-0.25, 0.1, 4), "answers": []},
    }


def judged() -> dict[str, Any]:
    return {"n": 40, "unread": 1, "win_rate": spread(0.875, 0.1), "disagreement": share(5), "kappa": 0.41}


def labelled() -> dict[str, Any]:
    return {"n": 50, "same": share(45, 50), "kappa": 0.77}


def begun() -> dict[str, Any]:
    """What is there before the first stage."""
    first = ("model", "precision", "persona", "seed", "config", "environment")
    return {**{key: results()[key] for key in first}, "missing": ["pairs has not been run with these settings."]}
