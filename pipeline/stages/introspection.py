"""What a personality writes about itself with its spec before it, and what of that is trained on."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moltlm.adapters.config import CHECKPOINTS
from moltlm.data import dataset_card, filters, leakage, replay
from moltlm.data import introspection as writing
from moltlm.data import introspection_filters as text_filters
from moltlm.data.introspection_filters import Judged
from moltlm.data.rows import read_rows, write_rows
from moltlm.data.state import Adapter, State
from moltlm.data.types import Exchange, Message
from moltlm.evals import persona as persona_eval
from moltlm.pipeline import preconditions
from moltlm.pipeline.artifact_files import intact
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages.initial import initial
from moltlm.pipeline.stages.pairs import classifier, load_pairs, load_persona, pairs

SAMPLING = {"reflections", "dialogues", "turns", "guided", "prompts", "max_new_tokens", "turn_tokens", "temperature"}
TRAINING = {"steps", "learning_rate", "pairs_share"}
WRITER = State((Adapter("personality-before-introspection"),))
"""The state that writes the texts. No task can have its name."""
SAMPLES, TEXTS, DROPPED, JOURNAL = "samples.jsonl", "texts.jsonl", "dropped.jsonl", "answers.jsonl"


@once_per_config
def samples(run: Run) -> Artifact:
    """Let the personality reflect on itself and talk with itself, with its spec before it. An interrupted sampling
    continues. Part of `molt train personality CONFIG`"""
    config, settings = run.config, run.config.introspection
    preconditions.introspection(config)
    start = initial(run)
    inputs = {
        "personality": start.fingerprint,
        "sampling": identity(settings, include=SAMPLING),
        "seed": config.run.seed,
    }

    def make(folder: Path) -> dict[str, Any]:
        writer = str(WRITER)
        if writer not in run.base.adapters:
            run.base.load(writer, start.folder)
        journal = writing.Journal(folder / CHECKPOINTS / JOURNAL)
        spec, batch, seed = load_persona(run).spec, config.model.eval_batch_size, config.run.seed

        def sample(prompts: list[list[Message]], tokens: int, seed: int) -> list[str]:
            from moltlm.adapters import prefix

            with run.base.state(WRITER):
                texts = prefix.generate(run.base, prompts, tokens, batch, settings.temperature, seed)
            return writing.finished(texts, run.base.tokenizer, tokens)

        with run.console.progress("introspection") as progress:
            texts = writing.reflect(spec, settings, sample, journal, batch, seed, progress)
            texts += writing.converse(spec, settings, sample, journal, batch, seed, progress)
        write_rows(folder / SAMPLES, texts)
        shutil.rmtree(folder / CHECKPOINTS)
        return {"samples": len(texts)}

    return run.do("introspection-samples", inputs, make)


@once_per_config
def introspection(run: Run) -> Artifact:
    """Filter what the personality wrote: in its voice, about its spec, without repetition. `molt data introspection
    CONFIG`"""
    written = samples(run)
    settings = run.config.introspection
    inputs = {"samples": written.fingerprint, "filters": identity(settings, exclude=SAMPLING | TRAINING)}

    def make(folder: Path) -> dict[str, Any]:
        texts = read_rows(written.folder / SAMPLES, Exchange)
        spec = load_persona(run).spec
        accepted, dropped, report = text_filters.apply(_judged(run, texts), spec, settings)
        write_rows(folder / TEXTS, accepted)
        write_rows(folder / DROPPED, dropped)
        facts = {
            "samples": len(texts),
            "texts": len(accepted),
            "reflections": sum(item.source == writing.REFLECTION for item in accepted),
            "turns": sum(item.source == writing.DIALOGUE for item in accepted),
            "dropped": report.dropped,
            "examples": report.examples,
            "variety": asdict(filters.variety([item.answer for item in accepted])),
        }
        dataset_card.write_introspection(folder, spec, run.config.model.id, facts)
        for line in summary(facts):
            run.console.say(f"  {line}")
        return facts

    return run.do("introspection", inputs, make)


def _judged(run: Run, texts: list[Exchange]) -> list[Judged]:
    """The texts with what the filters ask of them. Earlier turns that do not fit into a training example are cut."""
    fitting = [_trimmed(run, item) for item in texts]
    persona, data = load_persona(run), pairs(run)
    measure = persona_eval.PersonaMeasure(
        classifier(run),
        data.facts["nll_limit"],
        run.config.introspection.max_new_tokens,
        run.config.model.eval_batch_size,
    )
    with run.console.progress("introspection, filters") as progress:
        scores = persona_eval.measure_answers(
            run.base,
            [item.question for item in fitting],
            [item.answer for item in fitting],
            measure,
            progress,
            [item.prompt for item in fitting],
        )
    measured = [pair.question for pair in load_pairs(data, "heldout")]
    measured += [item.question for item in persona.heldout_dialogues]
    measured += [attack.prompt[-1]["content"] for attack in persona.attacks]
    questions = [item.question for item in fitting]
    near = {leak.first for leak in leakage.leaks(questions, measured, run.base.embed, run.config.filters.near)}
    return [
        Judged(item, score.probability, score.coherent, place in near)
        for place, (item, score) in enumerate(zip(fitting, scores, strict=True))
    ]


def _trimmed(run: Run, item: Exchange) -> Exchange:
    """The exchange without its earliest turns where it is too long; empty if its last turn alone is."""

    def tokens(row: Exchange) -> int:
        turns: list[Message] = [*row.prompt, {"role": "assistant", "content": row.answer}]
        return len(run.base.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"])

    trimmed = replay.trim(item, tokens, run.config.model.max_length)
    return trimmed or Exchange(item.prompt[-1:], "", item.topic, item.trait, item.source)


def summary(facts: dict[str, Any]) -> list[str]:
    """How many texts there are, and how many each filter dropped."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in facts["dropped"].items() if count) or "nothing"
    return [
        f"introspection: {facts['texts']} of {facts['samples']} texts to train on ({facts['reflections']} reflections, "
        f"{facts['turns']} turns of conversations)",
        f"dropped: {dropped}",
    ]


def load_texts(artifact: Artifact) -> list[Exchange]:
    """The texts that are trained on."""
    return read_rows(intact(artifact.folder, TEXTS), Exchange)
