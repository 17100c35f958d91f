"""The first result of a job: a few held-out questions, answered by the base and by the personality."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moltlm.data.io import read_jsonl, write_jsonl
from moltlm.data.state import BASE, PERSONALITY
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages import pairs, serving

QUESTIONS = 5


@dataclass(frozen=True)
class SideBySide:
    """A question and the answers to it, by the name of the state."""

    question: str
    answers: dict[str, str]

    def lines(self) -> list[str]:
        """The question, then one answer a line under the name of its state."""
        width = max(map(len, self.answers))
        answers = (f"  {state:{width}}  {' '.join(answer.split())}" for state, answer in self.answers.items())
        return [f"> {self.question}", *answers]


@once_per_config
def first_answers(run: Run) -> Artifact:
    """Answers of the base and the personality to `QUESTIONS` held-out prompts, spread over all of them.
    Part of `molt run CONFIG`"""
    length = run.config.persona_eval.max_new_tokens
    inputs = {"questions": QUESTIONS, "max_new_tokens": length, "state": serving.lineage(run, PERSONALITY)}

    def make(folder: Path) -> dict[str, Any]:
        heldout = [pair for pair in pairs.load_pairs(pairs.pairs(run), "heldout") if len(pair.prompt) == 1]
        chosen = heldout[:: max(1, len(heldout) // QUESTIONS)][:QUESTIONS]
        model, answers = serving.serve(run, PERSONALITY), {}
        for state in (BASE, PERSONALITY):
            with model.state(state):
                answers[str(state)] = model.generate([pair.prompt for pair in chosen], length, QUESTIONS)
        rows = [
            {"question": pair.prompt[-1]["content"], "answers": {state: each[i] for state, each in answers.items()}}
            for i, pair in enumerate(chosen)
        ]
        write_jsonl(folder / "answers.jsonl", rows)
        return {"questions": len(rows)}

    return run.do("first-answers", inputs, make, "first answers")


def load(artifact: Artifact) -> list[SideBySide]:
    """The questions with their answers."""
    return [SideBySide(**row) for row in read_jsonl(artifact.folder / "answers.jsonl")]
