"""The preference pairs of a run, and the classifier of style that is trained on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moltlm.data import dataset_card, filters, forgotten
from moltlm.data import pairs as pair_data
from moltlm.data import persona as personas
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import sha256_tree
from moltlm.data.persona import Persona
from moltlm.data.rows import read_rows, write_rows
from moltlm.data.state import BASE
from moltlm.data.types import Exchange, Pair
from moltlm.evals import capability, style
from moltlm.evals import identity as identity_eval
from moltlm.evals import persona as persona_eval
from moltlm.pipeline.artifact_files import intact
from moltlm.pipeline.identity import identity, present
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages import material


@once_per_config
def pairs(run: Run) -> Artifact:
    """Build preference pairs: answers in the personality's voice against worse ones, which the data gives or the bare
    model says. `molt data build CONFIG`"""
    config = run.config
    check_paths(run)
    persona = load_persona(run)
    inputs = {
        "model": identity(config.model, exclude={"shape", "chat_template"}),
        "chat_template": sha256_tree(Path(config.model.chat_template)) if config.model.chat_template else None,
        "persona": persona.fingerprint,
        "conversation_files": [[name, sha256_tree(Path(name))] for name in config.conversations.paths],
        "reader": _version_of_reader() if config.conversations.paths else None,
        "benchmarks": {name: [count, capability.files(name)] for name, count in config.capability.items.items()},
        "tasks": {name: source_of(task, seeded=False) for name, task in config.tasks.items()},
        "forgotten": _forgotten(run),
        "carried": [config.persona.carried.name, config.persona.train_limit] if config.persona.carried else None,
        **{name: identity(getattr(config, name)) for name in ("conversations", "teacher", "pairs", "filters")},
        "seed": config.run.seed,
    }

    def make(folder: Path) -> dict[str, Any]:
        model, batch, seed = run.base, config.model.eval_batch_size, config.run.seed
        for sentence in model.template.sentences():
            run.console.say(f"  {sentence}")
        exchanges = material.gather(run, persona)
        with run.console.progress("rejected side") as progress:
            enough = pair_data.BASE_ANSWERS
            drafts = pair_data.build(exchanges.train, model, config.pairs, batch, progress, seed, enough)
            heldout = pair_data.build(exchanges.heldout, model, config.pairs, batch, progress, seed)
        with run.console.progress("neutral answers") as progress, model.state(BASE):
            prompts = [*persona.neutral_train, *persona.neutral_eval]
            answers = model.generate(prompts, config.pairs.max_new_tokens, batch, progress)
        margins = material.margins(run, persona, exchanges.train, [pair.id for pair in drafts])
        filtered, report = filters.apply(drafts, config.filters, margins)
        with model.state(BASE):
            scores = model.score([pair.prompt for pair in filtered], [pair.chosen for pair in filtered], batch)
        neutral = [Exchange(*row) for row in zip(prompts, answers, strict=True)]
        split = len(persona.neutral_train)
        write_rows(folder / "train.jsonl", filtered)
        write_rows(folder / "heldout.jsonl", heldout)
        write_rows(folder / "neutral_train.jsonl", (item for item in neutral[:split] if item.answer))
        write_rows(folder / "neutral_eval.jsonl", (item for item in neutral[split:] if item.answer))
        facts = {
            **asdict(report),
            **asdict(filters.length_bias(filtered)),
            "provenance": counted(filtered),
            "base_answers": sum(bool(pair.base_answer.strip()) for pair in filtered),
            "heldout": len(heldout),
            "nll_limit": persona_eval.nll_limit(scores),
            "variety": asdict(filters.variety([pair.chosen for pair in filtered])),
            "examples": {**report.examples, **({"leaked": exchanges.leaked} if exchanges.leaked else {})},
            **exchanges.facts,
        }
        dataset_card.write(folder, persona.spec, config.model.id, filtered, facts)
        return facts

    return run.do("pairs", inputs, make)


def _forgotten(run: Run) -> list[str]:
    """What is left out of the conversations since it was forgotten, by hash."""
    settings = run.config.conversations
    digests = [digest for name in settings.paths for _, digest in sha256_tree(Path(name))]
    return forgotten.load(settings.forgotten).in_files(digests)


def counted(pairs: list[Pair]) -> dict[str, int]:
    """Number of pairs by the provenance of their rejected side."""
    return dict(Counter(pair.provenance for pair in pairs).most_common())


def check_paths(run: Run) -> None:
    """Raises BadInput, naming the setting, for a path that does not exist."""
    paths = [("conversations.paths", path) for path in run.config.conversations.paths]
    paths += [(f"tasks.{name}.path", task.path) for name, task in run.config.tasks.items() if task.path]
    paths += [("train.prose", run.config.train.prose)] if run.config.train.prose else []
    for key, path in paths:
        if not Path(path).exists():
            raise BadInput(f"{key}: {path} does not exist.", f"Name a path that exists: {key}=PATH")


@once_per_config
def classifier(run: Run) -> identity_eval.IdentityClassifier:
    """Train the classifier of authorship on training pairs only, against answers of the base and of other characters,
    shipped ones among them. A given or corrected answer may be near to the voice, and is not among them. It is the same
    for all states and seeds of these pairs."""
    return classifier_against(run, {})


def classifier_against(run: Run, rivals: dict[str, list[style.Labelled]]) -> identity_eval.IdentityClassifier:
    """The classifier of authorship, with the texts of further rivals, by name."""
    persona = load_persona(run)
    positive, base = _labelled(run)
    others = identity_eval.other_characters(base, persona, personas.shipped_characters(persona))
    return identity_eval.train(positive, {**others, **rivals}, persona.spec.catchphrases, seed=0)


def base_answers(run: Run) -> list[style.Labelled]:
    """What the base says to the prompts of the training pairs."""
    return _labelled(run)[1]


@once_per_config
def style_classifier(run: Run) -> style.StyleClassifier:
    """The classifier by which the studies were registered (protocol: G), and which their evidence was measured with:
    style alone, against the base and four other characters."""
    persona = load_persona(run)
    own, base = _labelled(run)
    negative = base + [style.Labelled(item.answer, item.source) for item in persona.other_characters]
    return style.train(own, negative, persona.spec.catchphrases, seed=0)


def _labelled(run: Run) -> tuple[list[style.Labelled], list[style.Labelled]]:
    """The chosen answers of the training pairs, and the base's own."""
    train = load_pairs(pairs(run), "train")
    by_topic = len({pair.topic for pair in train}) > 1  # without topics, cross-validation splits by prompt
    groups = [pair.topic if by_topic else pair.id for pair in train]
    rows = list(zip(train, groups, strict=True))
    positive = [style.Labelled(pair.chosen, group) for pair, group in rows]
    negative = [
        style.Labelled(pair.base_answer, group)
        for pair, group in rows
        if pair.base_answer.strip() not in ("", pair.chosen.strip())
    ]
    return positive, negative


def _version_of_reader() -> int:
    from moltlm.data.conversations import importers

    return importers.VERSION


@once_per_config
def load_persona(run: Run) -> Persona:
    """The persona that the configuration names."""
    return personas.load(run.config.persona)


def load_pairs(artifact: Artifact, split: str) -> list[Pair]:
    """The pairs of `train` or `heldout`."""
    return read_rows(intact(artifact.folder, f"{split}.jsonl"), Pair)


def load_exchanges(artifact: Artifact, split: str) -> list[Exchange]:
    """The base's own answers to neutral prompts, of `neutral_train` or `neutral_eval`."""
    return read_rows(intact(artifact.folder, f"{split}.jsonl"), Exchange)


def source_of(task: TaskConfig, seeded: bool = True) -> dict[str, Any]:
    """What identifies a task's examples: the settings that choose them, and the files.

    Args:
        seeded: whether the seed counts, which draws the examples from a file.
    """
    include = {"kind", "test", "prompt", "answer"} | ({"seed"} if seeded else set())
    include |= {"passage_words"} if task.kind == "text" else set()
    files = sha256_tree(Path(task.path)) if task.path else []
    return present({"settings": identity(task, include), "files": files})
