"""What a personality takes along: everything that it learned, and its own best answers to the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moltlm.adapters import base as bases
from moltlm.data import carried as carrying
from moltlm.data import forgotten, leakage, replay
from moltlm.data import pairs as pair_data
from moltlm.data.carried import Carried
from moltlm.data.io import fingerprint
from moltlm.data.rows import fingerprint_rows
from moltlm.data.state import PERSONALITY
from moltlm.data.topk import TopK
from moltlm.data.types import Exchange
from moltlm.evals import persona as persona_eval
from moltlm.evals import self_facts
from moltlm.evals.records import ScoredAnswer
from moltlm.pipeline.identity import identity, present
from moltlm.pipeline.run import Artifact, Missing, Run
from moltlm.pipeline.service import origin
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.stages import measures, pairs, serving


@dataclass(frozen=True)
class Source:
    """What is carried of a bundle, before it has answered anything.

    Attributes:
        exchanges: what it learned besides the persona's written answers: conversations, corrections, retrainings.
        prompts: the exchanges whose prompts it answers itself; not those of corrections.
        heldout: the exchanges that it is measured with.
    """

    exchanges: list[Exchange]
    prompts: list[Exchange]
    heldout: list[Exchange]


def source(run: Run, bundle: Bundle) -> Source:
    """What is there to be carried, read from a run whose personality the bundle has."""
    data = pairs.pairs(run)
    removed = forgotten.load(run.config.conversations.forgotten)
    first = [pair_data.exchange_of(pair) for pair in pairs.load_pairs(data, "train")]
    later = _later(run, bundle, first)
    every, _ = pair_data.without_refuted([*first, *later])
    every = [item for item in every if not removed.covers(item.question, _turns(item))]
    written = {carrying.id_of(item) for item in pairs.load_persona(run).train}
    learned = [_named(item, carrying.LEARNED) for item in every if carrying.id_of(item) not in written]
    heldout = [pair_data.exchange_of(pair) for pair in pairs.load_pairs(data, "heldout")]
    return Source(learned, _prompts(run, every), heldout)


def _later(run: Run, bundle: Bundle, first: list[Exchange]) -> list[Exchange]:
    """What retrainings taught it, and what else its buffer has; a buffer may hold own answers to the same prompts."""
    since = origin.learned_since(run, bundle.get("personality"))
    try:
        with run.reading():
            buffered = replay.load(origin.buffer_of(run, bundle)).exchanges
    except Missing:
        buffered = []
    prompts = {fingerprint(item.prompt) for item in [*first, *since]}
    return [*since, *(item for item in buffered if fingerprint(item.prompt) not in prompts)]


def _prompts(run: Run, exchanges: list[Exchange]) -> list[Exchange]:
    """One exchange for each prompt that the personality answers: not where a user corrected it, and not near to a
    question about its facts, by which it is measured."""
    corrected = {fingerprint(item.prompt) for item in exchanges if item.is_correction}
    distinct = {fingerprint(item.prompt): item for item in reversed(exchanges)}
    rows = [item for name, item in reversed(distinct.items()) if name not in corrected]
    questions = [question for *_, question in self_facts.questions(pairs.load_persona(run).spec.facts)]
    near = leakage.leaks([item.question for item in rows], questions, run.base.embed, run.config.filters.near)
    leaked = {leak.first for leak in near}
    return [item for place, item in enumerate(rows) if place not in leaked]


def carry(old: Run, new: Run, bundle: Bundle) -> Artifact:
    """Let the personality answer the prompts that it was trained on, and store the best answers with all that it
    learned, in the new run."""
    material = source(old, bundle)
    inputs = inputs_of(old, bundle.get("personality"), material, shares_vocabulary(old, new))

    def make(folder: Path) -> dict[str, Any]:
        answers, scores = _best(old, material.prompts)
        distributions = _distributions(old, answers) if "distributions" in inputs else {}
        vocabulary = old.base.model.config.get_text_config().vocab_size
        carrying.save(Carried([*material.exchanges, *answers], material.heldout, distributions), folder, vocabulary)
        return {
            "learned": len(material.exchanges),
            "prompts": len(material.prompts),
            "own_answers": len(answers),
            "mean_score": round(sum(scores) / len(scores), 3) if scores else None,
            "heldout": len(material.heldout),
            "distributions": len(distributions),
        }

    return new.do("carried", inputs, make, "what is carried")


def inputs_of(run: Run, former: str, material: Source, distils: bool) -> dict[str, Any]:
    """What is carried depends on.

    Args:
        former: the id of the personality.
        distils: whether its distributions are stored, too.
    """
    config = run.config
    inputs = {
        "personality": former,
        "state": serving.lineage(run, PERSONALITY),
        "learned": fingerprint_rows(material.exchanges),
        "prompts": fingerprint_rows(material.prompts),
        "heldout": fingerprint_rows(material.heldout),
        "move": identity(config.move, include={"samples", "temperature", "min_score"}),
        "max_new_tokens": config.persona_eval.max_new_tokens,
        "distributions": config.replay.top_k if distils else None,
        "seed": config.run.seed,
    }
    return present(inputs)


def shares_vocabulary(old: Run, new: Run) -> bool:
    """Whether both bases have the same tokens, so that a distribution over them means the same."""
    first, second = (bases.load_text(run.config.model).tokenizer for run in (old, new))
    same = first.get_vocab() == second.get_vocab()
    texts = [item.answer for item in pairs.load_persona(old).train[:100]]
    return same and all(first(text)["input_ids"] == second(text)["input_ids"] for text in texts)


def _best(run: Run, prompts: list[Exchange]) -> tuple[list[Exchange], list[float]]:
    """The best of the personality's answers to each prompt that has a good one, and their scores."""
    length = run.config.persona_eval.max_new_tokens
    measure = measures.persona_measure(run, length)
    best: dict[int, ScoredAnswer] = {}
    for number in range(run.config.move.samples):
        answers = _answers(run, prompts, number)
        for place, answer in enumerate(_scored(run, prompts, answers, measure)):
            passes = answer.coherent and answer.score >= run.config.move.min_score and _ends(run, answer.answer, length)
            if passes and (place not in best or answer.score > best[place].score):
                best[place] = answer
    chosen = sorted(best.items())
    exchanges = [_answered(prompts[place], row.answer) for place, row in chosen]
    return exchanges, [row.score for _, row in chosen]


def _answers(run: Run, prompts: list[Exchange], number: int) -> list[str]:
    """The personality's answers, of which the first, numbered 0, are greedy."""
    config = run.config
    model, temperature = serving.serve(run, PERSONALITY), config.move.temperature if number else 0.0
    with run.console.progress(f"own answers {number + 1}") as progress, model.state(PERSONALITY):
        return model.generate(
            [item.prompt for item in prompts],
            config.persona_eval.max_new_tokens,
            config.model.eval_batch_size,
            progress,
            temperature=temperature,
            seed=config.run.seed + number,
        )


def _scored(
    run: Run, prompts: list[Exchange], answers: list[str], measure: persona_eval.PersonaMeasure
) -> Sequence[ScoredAnswer]:
    with run.console.progress("scores of own answers") as progress:
        return persona_eval.measure_answers(
            run.base,
            [item.question for item in prompts],
            answers,
            measure,
            progress,
            [item.prompt for item in prompts],
        )


def _ends(run: Run, answer: str, length: int) -> bool:
    """Whether an answer came to its end within this many tokens, and was not cut off."""
    return len(run.base.tokenizer(answer, add_special_tokens=False)["input_ids"]) < length - 1


def _answered(item: Exchange, answer: str) -> Exchange:
    """The personality's own answer to the prompt of an exchange."""
    return Exchange(item.prompt, answer, item.topic, item.trait, carrying.OWN)


def _distributions(run: Run, answers: list[Exchange]) -> dict[str, TopK]:
    """The personality's distributions over its own answers."""
    if not answers:
        return {}
    config, model = run.config, serving.serve(run, PERSONALITY)
    with run.console.progress("distributions") as progress, model.state(PERSONALITY):
        rows = model.top_k(answers, config.replay.top_k, config.model.eval_batch_size, progress)
    return {carrying.id_of(item): row.top for item, row in zip(answers, rows, strict=True)}


def _turns(item: Exchange) -> list[str]:
    return [*(turn["content"] for turn in item.prompt), item.answer]


def _named(item: Exchange, name: str) -> Exchange:
    return Exchange(item.prompt, item.answer, item.topic, item.trait, name, item.rejected, item.provenance)
