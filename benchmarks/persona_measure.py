"""How well the persona score and each of its parts tell Cláudio's held-out answers from counterfeits.

    python benchmarks/persona_measure.py [--prompts 40] [--out measure.json]

The counterfeits answer held-out prompts: written answers to other prompts (shuffled), one written answer to all
(constant), the reminders task's JSON, the base's own answers. The other characters answer their own prompts, on topics
that the classifier was trained without; in `unknown` the classifier has never seen the character. The base's answers
and the limit of garbled text come from the pairs in docs/results/evidence.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from moltlm.adapters import base
from moltlm.adapters.config import ModelConfig
from moltlm.adapters.serve import Served
from moltlm.data import persona as personas
from moltlm.data import tasks
from moltlm.data.config import PersonaConfig, TaskConfig
from moltlm.data.types import Exchange
from moltlm.evals import identity
from moltlm.evals.persona import PersonaMeasure, measure_answers
from moltlm.evals.records import ScoredAnswer
from moltlm.evals.relevance import Questions
from moltlm.evals.style import Labelled

EVIDENCE = Path(__file__).parent.parent / "docs/results/evidence"
FOLDS = 3
Texts = list[tuple[str, str]]


def main() -> None:
    """Measure, print a table, and write it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=40, help="held-out prompts, spread over topics")
    parser.add_argument("--characters", type=int, default=16, help="answers of each other character, on unseen topics")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = measure(options.prompts, options.characters)
    print(table(rows))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


def measure(prompts: int, per_character: int) -> dict[str, dict[str, float]]:
    """By kind of answer: n, the mean of the score and of its parts, and their AUROC against the persona's own."""
    persona, (pairs, heldout, limit) = personas.load(PersonaConfig()), evidence()
    model = Served(base.load(ModelConfig(precision="fp32")))
    pool = Questions([row.question for row in persona.heldout], [row.topic for row in persona.heldout])
    shipped = personas.shipped_characters(persona)
    unseen = set(sorted({row.topic for rows in shipped.values() for row in rows})[::FOLDS])
    with_all = classifier(persona, pairs, shipped, lambda topic: topic not in unseen)
    exchanges = personas.spread(persona.heldout, prompts)
    other = {
        name: personas.spread([row for row in rows if row.topic in unseen], per_character)
        for name, rows in shipped.items()
    }
    results = {}
    for kind, texts in counterfeits(exchanges, heldout).items():
        results[kind] = scored(model, texts, PersonaMeasure(with_all, limit, 64, 4, pool))
    for name, rows in other.items():
        texts = [(row.question, row.answer) for row in rows]
        results[name] = scored(model, texts, PersonaMeasure(with_all, limit, 64, 4, pool))
    for name, rows in other.items():
        strangers = {each: answers for each, answers in shipped.items() if each != name}
        without = classifier(persona, pairs, strangers, lambda topic: topic not in unseen)
        probabilities = without.probability([row.answer for row in rows])
        results[f"{name}, unknown"] = [
            {**row, "score": row["score"] / row["identity"] * value, "identity": value}
            for row, value in zip(results[name], probabilities, strict=True)
        ]
    return {kind: summary(rows, results["held out"]) for kind, rows in results.items()}


def evidence() -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
    """The training pairs and the held-out pairs of the committed evidence, and the limit in nats a token above which
    text is garbled."""
    with tarfile.open(next(EVIDENCE.glob("pairs-*.tar.xz"))) as archive:
        names = "train.jsonl", "heldout.jsonl", "artifact.json"
        train, heldout, artifact = (archive.extractfile(name).read().decode() for name in names)  # type: ignore[union-attr]
    rows = [[json.loads(line) for line in text.splitlines()] for text in (train, heldout)]
    return rows[0], rows[1], json.loads(artifact)["facts"]["nll_limit"]


def classifier(
    persona: personas.Persona,
    pairs: list[dict[str, Any]],
    shipped: dict[str, list[Exchange]],
    trained_on: Callable[[str], bool],
) -> identity.IdentityClassifier:
    """The classifier of a run, trained on those topics only."""
    training = [pair for pair in pairs if trained_on(pair["topic"])]
    positive = [Labelled(pair["chosen"], pair["topic"]) for pair in training]
    base_texts = [Labelled(pair["rejected"], pair["topic"]) for pair in training]
    characters = {name: [row for row in rows if trained_on(row.topic)] for name, rows in shipped.items()}
    others = identity.other_characters(base_texts, persona, characters)
    return identity.train(positive, others, persona.spec.catchphrases, 0)


def counterfeits(exchanges: list[Exchange], heldout: list[dict[str, Any]]) -> dict[str, Texts]:
    """By kind: questions with answers. Shuffled: each question has the answer to one of another topic."""
    questions, answers = [row.question for row in exchanges], [row.answer for row in exchanges]
    topics = [row.topic for row in exchanges]
    shift = next(
        n for n in range(1, len(exchanges)) if all(a != b for a, b in zip(topics, topics[n:] + topics[:n], strict=True))
    )
    examples = tasks.examples(TaskConfig(kind="reminders"), "test", 0)
    return {
        "held out": list(zip(questions, answers, strict=True)),
        "shuffled": list(zip(questions, answers[shift:] + answers[:shift], strict=True)),
        "constant": [(question, answers[0]) for question in questions],
        "reminders JSON": [(q, row.answer) for q, row in zip(questions, examples, strict=False)],
        "base": [(pair["prompt"][-1]["content"], pair["rejected"]) for pair in heldout[: len(exchanges)]],
    }


def scored(model: Served, texts: Texts, measure_of: PersonaMeasure) -> list[dict[str, float]]:
    """The score and its parts, answer by answer."""
    start = time.process_time()
    rows = measure_answers(model, [question for question, _ in texts], [answer for _, answer in texts], measure_of)
    print(f"{(time.process_time() - start) / len(rows):.2f} s of CPU time an answer")
    return [parts(row) for row in rows]


def parts(row: ScoredAnswer) -> dict[str, float]:
    """The score of one answer and its parts."""
    return {
        "score": row.score,
        "identity": row.probability,
        "relevance": row.relevance or 0.0,
        "distinctness": row.distinctness or 0.0,
        "coherence": float(row.coherent),
    }


def summary(rows: list[dict[str, float]], own: list[dict[str, float]]) -> dict[str, float]:
    """Means of one kind, and the AUROC of each against the persona's own answers."""
    result: dict[str, float] = {"n": len(rows)}
    for name in rows[0]:
        values, reference = [row[name] for row in rows], [row[name] for row in own]
        result[name] = float(np.mean(values))
        result[f"auroc_{name}"] = float(roc_auc_score([1] * len(own) + [0] * len(rows), reference + values))
    return result


def table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table: means, with the AUROC in brackets."""
    names = ["score", "identity", "relevance", "distinctness", "coherence"]
    lines = ["| answers | n | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for kind, row in rows.items():
        cells = [f"{row[name]:.2f} ({row[f'auroc_{name}']:.2f})" for name in names]
        lines.append(f"| {kind} | {row['n']:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
