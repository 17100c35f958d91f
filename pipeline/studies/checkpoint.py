"""What a study measures at a checkpoint: likelihoods, persona, drift of language and hidden states, capability."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from moltlm.data.types import Exchange, Pair
from moltlm.evals.config import HypothesisConfig
from moltlm.evals.direction import Direction
from moltlm.evals.persona import PersonaMeasure, score_answers
from moltlm.evals.records import AnswerRecord, BasePoint, ItemRecord
from moltlm.pipeline.run import Run
from moltlm.pipeline.stages import direction, pairs

if TYPE_CHECKING:
    from moltlm.adapters.serve import TextModel

BENCHMARK = "lambada"
ANSWER_TOKENS = 48
BATCH = 16
Measured = dict[str, Any]


def probe(run: Run, hypothesis: HypothesisConfig, seed: int) -> Callable[[TextModel], BasePoint]:
    """A function that measures a model at a checkpoint, against a base of the same precision that it keeps loaded."""
    from moltlm.adapters import base
    from moltlm.adapters.serve import TextModel

    data, persona = pairs.pairs(run), direction.load(run) if hypothesis.neutral else None
    run.release()
    loaded = base.load(run.config.model, hypothesis.precision)
    original = TextModel(loaded.model, loaded.tokenizer)
    measure = PersonaMeasure(
        pairs.style_classifier(run), data.facts["nll_limit"], ANSWER_TOKENS, run.config.model.eval_batch_size
    )
    heldout = pairs.load_pairs(data, "heldout")
    neutral = pairs.load_exchanges(data, "neutral_eval")[: hypothesis.neutral]
    before = _states(original, neutral) if neutral else None

    def measure_checkpoint(text: TextModel) -> BasePoint:
        from moltlm.evals import harness

        prompts = [pair.prompt for pair in heldout]
        scores = text.score(prompts, [pair.chosen for pair in heldout], BATCH)
        items = harness.evaluate(text, {BENCHMARK: hypothesis.items}, BATCH, 0, skip=skip(hypothesis, seed))  # type: ignore[arg-type]
        return BasePoint(
            likelihood=sum(score.per_token for score in scores) / len(scores),
            likelihoods=[score.per_token for score in scores],
            items=[ItemRecord(item=item.item, correct=item.correct, logprob=item.logprob) for item in items],
            **_persona(text, original, heldout[: hypothesis.prompts], measure),
            **_language(text, original, neutral),
            **({} if persona is None or before is None else _shift(persona, before, _states(text, neutral))),
        )

    return measure_checkpoint


def _persona(text: TextModel, original: TextModel, pairs: list[Pair], measure: PersonaMeasure) -> Measured:
    """The mean of classifier probability x coherent over greedy answers (protocol: G), and the share coherent."""
    prompts = [pair.prompt for pair in pairs]
    answers = text.generate(prompts, measure.max_new_tokens, measure.batch_size)
    base_scores = original.score(prompts, answers, BATCH)
    scored = score_answers([pair.question for pair in pairs], answers, base_scores, measure)
    records = [
        AnswerRecord(id=pair.id, answer=answer.answer, score=answer.score, coherent=answer.coherent)
        for pair, answer in zip(pairs, scored, strict=True)
    ]
    score = sum(record.score for record in records) / len(records)
    coherent = sum(record.coherent for record in records) / len(records)
    return {"persona": score, "coherent": coherent, "answers": records}


def _language(text: TextModel, original: TextModel, neutral: list[Exchange]) -> Measured:
    """Cross-entropy on the base's own neutral answers and KL(base || model), nats a token, mean over answers."""
    if not neutral:
        return {}
    import torch

    rows = text.encode([item.prompt for item in neutral], [item.answer for item in neutral])
    entropies, kls = [], []
    with torch.no_grad():
        for row in rows:
            old, new = (model.completion_logits([row])[0].float().log_softmax(-1) for model in (original, text))
            target = torch.tensor(row[1], device=new.device)
            entropies.append(-float(new.gather(1, target[:, None]).mean()))
            kls.append(float((old.exp() * (old - new)).sum(-1).mean()))
    return {"cross_entropy": sum(entropies) / len(rows), "kl": sum(kls) / len(rows)}


def _states(text: TextModel, exchanges: list[Exchange]) -> np.ndarray:
    """(n, layers + 1, width) hidden states over given answers."""
    from moltlm.adapters import reading

    return direction.stacked(reading.read(text, exchanges, BATCH, states=True))


def _shift(persona: Direction, before: np.ndarray, after: np.ndarray) -> Measured:
    """How far the states over the same neutral answers moved: along the persona direction, and in any direction."""
    old, new = before[:, persona.layer], after[:, persona.layer]
    relative = np.linalg.norm(new - old, axis=1) / np.linalg.norm(old, axis=1)
    along = persona.project(after) - persona.project(before)
    return {"along_persona": float(along.mean()), "state_shift": float(relative.mean())}


def composite(text: TextModel, hypothesis: HypothesisConfig, seed: int, items: list[ItemRecord]) -> float:
    """Points of accuracy above chance, as a share of what is above it, mean over LAMBADA and the named benchmarks."""
    from moltlm.evals import harness

    records = harness.evaluate(text, hypothesis.composite, BATCH, seed)  # type: ignore[arg-type]
    parts = [sum(item.correct for item in items) / len(items)]
    for name in hypothesis.composite:
        rows = [record for record in records if record.benchmark == name]
        chance = sum(row.chance for row in rows) / len(rows)
        parts.append((sum(row.correct for row in rows) / len(rows) - chance) / (1 - chance))
    return 100 * sum(parts) / len(parts)


def skip(hypothesis: HypothesisConfig, seed: int) -> int:
    """How many items of LAMBADA to skip: it is shuffled once, and each seed, tuning ones first, has its own part."""
    return hypothesis.items * [*hypothesis.tuning_seeds, *hypothesis.seeds].index(seed)
