"""The stages, in order. Each asks the ones before it for their artifact, so any of them can be run alone."""

from __future__ import annotations

import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from moltlm.adapters import base, compose, train
from moltlm.adapters import router as routing
from moltlm.data import coherence, dataset_card, filters, mix, replay, tasks, teacher
from moltlm.data import pairs as pair_data
from moltlm.data import persona as personas
from moltlm.data.config import TaskConfig
from moltlm.data.conversations import importers
from moltlm.data.errors import BadInput
from moltlm.data.io import sha256_tree
from moltlm.data.persona import Persona
from moltlm.data.rows import fingerprint_rows, read_rows, write_rows
from moltlm.data.types import Exchange, Message, Pair
from moltlm.evals import capability, style
from moltlm.evals import persona as persona_eval
from moltlm.pipeline import layout
from moltlm.pipeline.run import Artifact, Run
from moltlm.pipeline.stages import buffer as buffers
from moltlm.pipeline.stages import material, teaching

ON_POLICY = {"generations", "max_new_tokens", "metric"}
"""What practice on own samples depends on, besides the settings that say so by name."""
GATES_BATCH = 8
NOT_TRAINED = {
    "control", "floor", "metric", "seed", "test", "passage_words", "max_new_tokens", "generations",
    "on_policy", "on_policy_steps", "on_policy_rounds", "on_policy_learning_rate",
}  # fmt: skip
"""Settings of a task that its first training does not depend on."""


def pairs(run: Run) -> Artifact:
    """Preference pairs: answers in the personality's voice against the bare model's own. `molt data build CONFIG`"""
    config = run.config
    persona = personas.load(config.persona)
    inputs = {
        "model": config.model.model_dump(exclude={"shape"}),
        "persona": persona.fingerprint,
        "conversations": [[name, sha256_tree(Path(name))] for name in config.conversations.paths],
        "measured": {
            "capability": {name: [count, capability.files(name)] for name, count in config.capability.items.items()},
            "tasks": {name: {**source_of(task), "seed": None} for name, task in config.tasks.items()},
        },
        **{name: getattr(config, name).model_dump() for name in ("conversations", "teacher", "pairs")},
        "checks": config.filters.model_dump(),  # the key by which the committed evidence knows the filters
        "seed": config.run.seed,
    }

    def make(folder: Path) -> dict[str, Any]:
        model, batch, seed = run.base, config.model.eval_batch_size, config.run.seed
        found = material.gather(run, persona)
        with run.console.progress("rejected side") as progress:
            drafts = pair_data.build(found.train, model, config.pairs, batch, progress, seed)
            heldout = pair_data.build(found.heldout, model, config.pairs, batch, progress, seed)
        with run.console.progress("neutral answers") as progress, model.state("base"):
            prompts = [*persona.neutral_train, *persona.neutral_eval]
            answers = model.generate(prompts, config.pairs.max_new_tokens, batch, progress)
        margins = material.margins(run, persona, found.train, [pair.id for pair in drafts])
        kept, report = filters.apply(drafts, config.filters, margins)
        with model.state("base"):
            spoken = model.score([pair.prompt for pair in kept], [pair.chosen for pair in kept], batch)
        neutral = [Exchange(*row) for row in zip(prompts, answers, strict=True)]
        split = len(persona.neutral_train)
        write_rows(folder / "train.jsonl", kept)
        write_rows(folder / "heldout.jsonl", heldout)
        write_rows(folder / "neutral_train.jsonl", (item for item in neutral[:split] if item.answer))
        write_rows(folder / "neutral_eval.jsonl", (item for item in neutral[split:] if item.answer))
        facts = {
            **asdict(report),
            **asdict(filters.length_bias(kept)),
            "heldout": len(heldout),
            "nll_limit": persona_eval.nll_limit(spoken),
            "variety": asdict(filters.variety([pair.chosen for pair in kept])),
            "examples": {**report.examples, **({"leaked": found.leaked} if found.leaked else {})},
            **found.facts,
        }
        dataset_card.write(folder, persona.spec, config.model.id, kept, facts)
        return facts

    return run.do("pairs", inputs, make)


def personality(run: Run) -> Artifact:
    """The personality adapter: DPO with NLL and explicit KL, or SFT. `molt train personality CONFIG`"""
    config, before = run.config, pairs(run)
    inputs = {
        "pairs": before.fingerprint,
        "seed": config.run.seed,
        **{name: getattr(config, name).model_dump() for name in ("lora", "train", "personality", "dpo")},
    }

    def make(folder: Path) -> dict[str, Any]:
        run.release()
        with run.console.progress("personality") as progress:
            trained = train.train_personality(
                config.adapters(),
                base.load(config.model),
                load_pairs(before, "train"),
                load_exchanges(before, "neutral_train"),
                folder,
                config.run.seed,
                progress,
                spec=teacher.brief(material_of(run).spec),
                reward=_in_character(run) if config.personality.method == "grpo" else None,
            )
        return _training_facts(trained)

    return run.do("personality", inputs, make)


def _in_character(run: Run) -> train.Reward:
    """The style classifier's probability of a coherent answer, 0 of any other. So its score of what was trained by it
    is no evidence; the other measures of the persona are."""
    judge = classifier(run)

    def reward(prompts: list[list[Message]], said: list[str]) -> list[float]:
        questions = [prompt[-1]["content"] for prompt in prompts]
        fine = [coherence.check(*row, 0.0, 1.0).coherent for row in zip(questions, said, strict=True)]
        return [value * ok for value, ok in zip(judge.probability(said), fine, strict=True)]

    return reward


def classifier(run: Run) -> style.StyleClassifier:
    """The style classifier: training prompts only, against the base's answers and other characters'. One and the same
    for all states and seeds of these pairs."""
    persona = material_of(run)
    ours = load_pairs(pairs(run), "train")
    topics = len({pair.topic for pair in ours}) > 1  # without topics, cross-validation keeps prompts apart
    groups = [pair.topic if topics else pair.id for pair in ours]
    positive = [style.Labelled(pair.chosen, group) for pair, group in zip(ours, groups, strict=True)]
    negative = [style.Labelled(pair.rejected, group) for pair, group in zip(ours, groups, strict=True)]
    negative += [style.Labelled(item.answer, item.source) for item in persona.other_characters]
    return style.train(positive, negative, persona.spec.catchphrases, seed=0)


def buffer(run: Run) -> Artifact:
    """The replay buffer: what carries the personality, under a token budget. `molt replay build CONFIG`"""
    config, data, adapter = run.config, pairs(run), personality(run)
    inputs = {"personality": adapter.fingerprint, "replay": config.replay.model_dump(), "seed": config.run.seed}

    def make(folder: Path) -> dict[str, Any]:
        model = serve(run, "personality")
        exchanges = [Exchange(pair.prompt, pair.chosen, pair.topic, pair.trait) for pair in load_pairs(data, "train")]
        if config.replay.answers == "own":
            exchanges = _own(run, exchanges)
        with run.console.progress("replay buffer") as progress:
            return buffers.build(
                model, exchanges, config.replay, config.run.seed, config.model.eval_batch_size, folder, progress
            )

    return run.do("replay", inputs, make)


def _own(run: Run, exchanges: list[Exchange]) -> list[Exchange]:
    """The same prompts with what the personality says to them; what is no language is left out."""
    prompts, batch = [item.prompt for item in exchanges], run.config.model.eval_batch_size
    with run.console.progress("own answers") as progress, run.base.state("personality"):
        said = run.base.generate(prompts, run.config.pairs.max_new_tokens, batch, progress)
    rows = [replace(item, answer=answer) for item, answer in zip(exchanges, said, strict=True)]
    return [item for item in rows if coherence.check(item.question, item.answer, 0.0, 1.0).coherent]


def updated_buffer(run: Run, paths: list[Path]) -> Artifact:
    """The buffer after new conversations came in. `molt replay update CONFIG PATH...`"""
    config, before = run.config, buffer(run)
    report = importers.ImportReport()
    fresh = list(importers.read(paths, config.conversations, report))
    if not fresh:
        raise BadInput("There is no exchange in these conversations.", f"Look why: molt data import {paths[0]}")
    inputs = {"replay": before.fingerprint, "new": fingerprint_rows(fresh)}

    def make(folder: Path) -> dict[str, Any]:
        batch, start = config.model.eval_batch_size, replay.load(before.folder)
        with run.console.progress("replay buffer") as progress:
            model = serve(run, "personality")
            return buffers.build(model, fresh, config.replay, config.run.seed, batch, folder, progress, start)

    return run.do("replay-update", inputs, make)


def task(run: Run, name: str) -> Artifact:
    """A task adapter above the frozen personality, replay mixed in; `NAME_control` is the same without replay.
    `molt train task NAME CONFIG`"""
    config, settings = run.config, layout.task_settings(run, name)
    seed = layout.seed_of(run, settings)
    below = {label: adapter(run, label) for label in layout.beneath(run, name)}
    before = layout.continued(run, name)
    start = adapter(run, before) if before else None
    protect = config.protect
    kept = buffer(run) if settings.replay_ratio or protect.replays else None
    remembered = layout.earlier(run, name) if protect.task_memory else []
    inputs: dict[str, Any] = {
        "beneath": {label: artifact.fingerprint for label, artifact in below.items()},
        "start": start.fingerprint if start else None,
        "task": {key: value for key, value in settings.model_dump().items() if key not in NOT_TRAINED},
        "examples": source_of(settings),
        "replay": kept.fingerprint if kept else None,
        "instructions": fingerprint_rows(_instructions(run)),
        "memory": [[label, source_of(config.tasks[label])] for label in remembered],
        "seed": seed,
        # all of it is off by default, and what the layout comes to is in `beneath` and `start`, but for a mixture
        "protect": protect.model_dump(exclude={"layout"}, exclude_defaults=True),
        "mixture": protect.layout == "mixture",
        **{section: getattr(config, section).model_dump() for section in ("lora", "train")},
    }

    def make(folder: Path) -> dict[str, Any]:
        lesson = _lesson(run, name, kept, remembered, start)
        done = teaching.teach(run, lesson, folder)
        new = {id(item) for item in lesson.taught}
        return {
            **_training_facts(done.trained),
            "examples": len(done.mix),
            "replayed": sum(id(item) not in new for item in done.mix),
            **asdict(done.far),
            "risk": done.far.risk,
            "strength": done.strength,
        }

    return run.do(f"task-{name}", inputs, make)


def _lesson(
    run: Run, name: str, kept: Artifact | None, remembered: list[str], start: Artifact | None
) -> teaching.Lesson:
    settings = layout.task_settings(run, name)
    seed = layout.seed_of(run, settings)
    return teaching.Lesson(
        name,
        settings,
        seed,
        _taught(settings, name, seed),
        replay.load(kept.folder) if kept else None,
        [item for label in remembered for item in _memory(run, label)],
        load_exchanges(pairs(run), "neutral_train"),
        _instructions(run),
        {label: adapter(run, label).folder for label in layout.beneath(run, name)},
        start.folder if start else None,
    )


def _instructions(run: Run) -> list[Exchange]:
    """What is replayed beside the personality, if it is not the base's own answers."""
    path = run.config.replay.instructions
    if not path:
        return []
    return list(importers.read([Path(path).expanduser()], run.config.conversations, importers.ImportReport()))


def practice(run: Run, name: str) -> Artifact:
    """The task's adapter after it was trained on the model's own samples (`tasks.NAME.on_policy`). Part of
    `molt run CONFIG`"""
    settings, before = layout.task_settings(run, name), task(run, name)
    kept = buffer(run) if settings.replay_ratio or run.config.protect.replays else None
    remembered = layout.earlier(run, name) if run.config.protect.task_memory else []
    on = {key: value for key, value in settings.model_dump().items() if key in ON_POLICY or key.startswith("on_policy")}

    def make(folder: Path) -> dict[str, Any]:
        return teaching.practise(run, _lesson(run, name, kept, remembered, before), folder)

    return run.do(f"practice-{name}", {"task": before.fingerprint, **on}, make)


def router(run: Run, names: list[str]) -> Artifact:
    """Sends each request to the adapter of one of these tasks, or to the personality alone. Judged on test examples and
    held-out prompts; or, by `router.method`, gates for all of them. Part of `molt compare-methods CONFIG`"""
    if run.config.router.gated:
        return _gates(run, names)
    config, data = run.config, pairs(run)
    settings = [(name, layout.task_settings(run, name)) for name in names]
    inputs = {
        "pairs": data.fingerprint,
        "router": config.router.model_dump(),
        "tasks": {name: [source_of(task), task.train, layout.seed_of(run, task)] for name, task in settings},
    }

    def make(folder: Path) -> dict[str, Any]:
        found = {"train": {}, "test": {}}
        for split, rows in found.items():
            for name, task in settings:
                rows[name] = [item.prompt[-1]["content"] for item in tasks.examples(task, split, config.run.seed)]
        chat = {"train": ("train", "neutral_train"), "test": ("heldout", "neutral_eval")}
        for split, (ours, neutral) in chat.items():
            found[split][routing.NOBODY] = [item.question for item in load_pairs(data, ours)]
            found[split][routing.NOBODY] += [item.question for item in load_exchanges(data, neutral)]
        embed, how = run.base.embed, config.router
        fitted = routing.fit(embed, found["train"], how.method, how.quantile, config.run.seed)
        routing.save(fitted, folder)
        return asdict(routing.judge(fitted, embed, found["test"]))

    return run.do("router", inputs, make, f"router of {', '.join(names)}")


def _gates(run: Run, names: list[str]) -> Artifact:
    """The adapters of these tasks as the experts of one mixture."""
    config, seed = run.config, run.config.run.seed
    below = {"personality": personality(run)}
    parts = {name: adapter(run, name) for name in names}
    inputs = {
        "beneath": {label: artifact.fingerprint for label, artifact in below.items()},
        "experts": {name: artifact.fingerprint for name, artifact in parts.items()},
        "router": config.router.model_dump(),
        "train": config.train.model_dump(),
        "seed": seed,
    }

    def make(folder: Path) -> dict[str, Any]:
        model = serve(run, "+".join(["personality", *names]))
        how = config.router
        arrow = how.method == "arrow"
        experts = compose.experts(model, names, folder if arrow else folder / "joined", how.top if arrow else None)
        run.release()  # what was joined stays in the model
        if arrow:
            return {}
        with run.console.progress("gates") as progress:
            trained = train.train_gates(
                config.adapters(),
                base.load(config.model),
                folder / "joined",
                experts,
                _gates_learn(run, names),
                {label: artifact.folder for label, artifact in below.items()},
                folder,
                seed,
                progress,
            )
        shutil.rmtree(folder / "joined")
        return _training_facts(trained)

    return run.do("gates", inputs, make, f"gates of {', '.join(names)}")


def _gates_learn(run: Run, names: list[str]) -> list[Exchange]:
    """In training order: some of each task, of the personality's answers, and of the base's own."""
    how, data, seed = run.config.router, pairs(run), run.config.run.seed
    spoken = [Exchange(pair.prompt, pair.chosen) for pair in load_pairs(data, "train")]
    owners = [spoken, load_exchanges(data, "neutral_train")]
    for name in names:
        settings = layout.task_settings(run, name)
        owners.append(_taught(settings, name, layout.seed_of(run, settings)))
    shares = [random.Random(seed).sample(rows, min(how.examples, len(rows))) for rows in owners]
    return mix.mix([item for rows in shares for item in rows], [], how.steps, GATES_BATCH, 0, seed)


def lineage(run: Run, state: str) -> dict[str, Any]:
    """What a state is made of: the pairs' fingerprint (which names the base) and those of its adapters."""
    found = {"pairs": pairs(run).fingerprint}
    for name in layout.names_in(state):
        found[name.removesuffix(layout.CONTROL)] = adapter(run, name).fingerprint
    if layout.routes(state):
        found["router"] = router(run, layout.names_in(state)[1:]).fingerprint
    return found


def adapter(run: Run, name: str) -> Artifact:
    if name == "personality":
        return personality(run)
    return task(run, name) if layout.task_settings(run, name).on_policy == "none" else practice(run, name)


def serve(run: Run, state: str) -> Any:
    """The served base with the adapters of a state loaded (`data.types.ChatModel`)."""
    names, chosen = layout.names_in(state), layout.routes(state)
    if chosen and run.config.router.gated:
        needed = {"personality": personality(run), state.split("+")[-1]: router(run, names[1:])}
    else:
        needed = {name: adapter(run, name) for name in names}
    for name, artifact in needed.items():
        if name not in run.base.adapters:
            run.base.load(name, artifact.folder)
    if chosen and not run.config.router.gated:
        return routing.Routed(run.base, routing.load(router(run, names[1:]).folder))
    return run.base


def material_of(run: Run) -> Persona:
    return personas.load(run.config.persona)


def load_pairs(artifact: Artifact, name: str) -> list[Pair]:
    return read_rows(artifact.folder / f"{name}.jsonl", Pair)


def load_exchanges(artifact: Artifact, name: str) -> list[Exchange]:
    return read_rows(artifact.folder / f"{name}.jsonl", Exchange)


def _taught(task: TaskConfig, name: str, seed: int) -> list[Exchange]:
    return [Exchange(item.prompt, item.answer, source=name) for item in tasks.examples(task, "train", seed)]


def _memory(run: Run, name: str) -> list[Exchange]:
    """What is kept of an earlier task: a sample that its seed draws."""
    task = run.config.tasks[name]
    return _taught(task, name, layout.seed_of(run, task))[: run.config.protect.task_memory]


def source_of(task: TaskConfig) -> dict[str, Any]:
    """What a task's examples come from: the settings that choose them, and the files."""
    settings = task.model_dump(include={"kind", "test", "prompt", "answer", "seed"})
    if task.kind == "text":
        settings["passage_words"] = task.passage_words
    return {**settings, "files": sha256_tree(Path(task.path).expanduser()) if task.path else ""}


def _training_facts(trained: train.Trained) -> dict[str, Any]:
    return {
        "seconds": round(trained.seconds, 1),
        "steps": trained.steps,
        "peak_gib": round(trained.peak_gib, 2),
        "trainable_parameters": trained.parameters,
        "frozen_tensors_unchanged": trained.frozen,
        "trainable_tensors_moved": trained.moved,
    }
