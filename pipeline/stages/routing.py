"""The router of a run: which adapter answers a request, or how much each counts for a token."""

from __future__ import annotations

import random
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moltlm.adapters import router as routers
from moltlm.data import mix
from moltlm.data import replay as buffers
from moltlm.data import tasks as task_data
from moltlm.data.state import PERSONALITY_ADAPTER, Adapter
from moltlm.data.types import Exchange
from moltlm.pipeline import layout
from moltlm.pipeline.identity import identity, prose_of
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages.initial import training_facts
from moltlm.pipeline.stages.pairs import load_exchanges, load_pairs, pairs, source_of
from moltlm.pipeline.stages.personality import load_adapters, personality
from moltlm.pipeline.stages.replay import buffer
from moltlm.pipeline.stages.tasks import trained, training_examples

if TYPE_CHECKING:
    from moltlm.adapters import protections

GATES_BATCH = 8


@once_per_config
def router(run: Run, adapters: tuple[Adapter, ...]) -> Artifact:
    """Train the router that sends each request to one of these adapters, or to the personality alone, and measure it on
    test examples and held-out prompts; or, by `router.method`, token-level gates over all of them. Part of
    `molt compare-methods CONFIG`"""
    if run.config.router.gated:
        return _gates(run, adapters)
    config, data = run.config, pairs(run)
    settings = [(adapter.name, layout.task_settings(run, adapter)) for adapter in adapters]
    inputs = {
        "pairs": data.fingerprint,
        "router": identity(config.router),
        "tasks": {name: [source_of(task), task.train, layout.seed_of(run, task)] for name, task in settings},
    }

    def make(folder: Path) -> dict[str, Any]:
        texts: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
        for split, by_owner in texts.items():
            for name, task in settings:
                examples = task_data.examples(task, split, config.run.seed)
                by_owner[name] = [item.prompt[-1]["content"] for item in examples]
        for split, persona, neutral in (("train", "train", "neutral_train"), ("test", "heldout", "neutral_eval")):
            chat = [*load_pairs(data, persona), *load_exchanges(data, neutral)]
            texts[split][routers.NO_TASK] = [item.question for item in chat]
        embed, method, quantile = run.base.embed, config.router.method, config.router.quantile
        fitted = routers.fit(embed, texts["train"], method, quantile, config.run.seed)
        routers.save(fitted, folder)
        return asdict(routers.evaluate(fitted, embed, texts["test"]))

    return run.do("router", inputs, make, f"router of {', '.join(map(str, adapters))}")


def _gates(run: Run, adapters: tuple[Adapter, ...]) -> Artifact:
    """The adapters of these tasks as the experts of one mixture."""
    config, seed = run.config, run.config.run.seed
    below = {PERSONALITY_ADAPTER: personality(run)}
    parts = {adapter: trained(run, adapter) for adapter in adapters}
    inputs: dict[str, Any] = {
        "adapters_below": {str(label): artifact.fingerprint for label, artifact in below.items()},
        "experts": {str(label): artifact.fingerprint for label, artifact in parts.items()},
        "router": identity(config.router),
        "train": identity(config.train),
        "seed": seed,
    }
    replay = None
    if config.router.method == "token":  # Arrow's gates are not trained
        from moltlm.adapters import protections

        if protect := config.protect.model_dump(exclude={"layout"}, exclude_defaults=True):
            inputs |= {"protect": protect, "prose": prose_of(config.train, config.protect.kl_on)}
        if "replay" in protections.active(config.protect, "token gates").needs:
            replay = buffer(run)

    def make(folder: Path) -> dict[str, Any]:
        from moltlm.adapters import base, compose
        from moltlm.adapters.token_gates import TokenGatesJob, train_token_gates

        model, names = load_adapters(run, {**below, **parts}), list(map(str, adapters))
        arrow = config.router.method == "arrow"
        joined = folder if arrow else folder / "joined"
        experts = compose.experts(model, names, joined, config.router.top if arrow else None)
        run.release()  # the composed adapter stays in the model otherwise
        if arrow:
            return {}
        with run.console.progress("gates") as progress:
            job = TokenGatesJob(
                config=config.adapters(),
                base=base.load(config.model),
                folder=folder,
                seed=seed,
                progress=progress,
                adapters_below={str(label): artifact.folder for label, artifact in below.items()},
                start=joined,
                experts=experts,
                mix=_gate_examples(run, adapters),
                material=_gate_material(run, replay),
            )
            result = train_token_gates(job)
        shutil.rmtree(joined)
        return training_facts(result)

    return run.do("gates", inputs, make, f"gates of {', '.join(map(str, adapters))}")


def _gate_material(run: Run, replay: Artifact | None) -> protections.Material:
    """What protections compare with while the gates are trained."""
    from moltlm.adapters import protections

    stored = buffers.load(replay.folder) if replay else None
    neutral = load_exchanges(pairs(run), "neutral_train")
    return protections.Material(
        neutral=neutral,
        replay=stored.exchanges if stored else [],
        stored=stored.stored if stored else [],
    )


def _gate_examples(run: Run, adapters: tuple[Adapter, ...]) -> list[Exchange]:
    """In training order: some of each task, of the personality's answers, and of the base's own."""
    config, data, seed = run.config.router, pairs(run), run.config.run.seed
    persona = [Exchange(pair.prompt, pair.chosen) for pair in load_pairs(data, "train")]
    owners = [persona, load_exchanges(data, "neutral_train")]
    for adapter in adapters:
        settings = layout.task_settings(run, adapter)
        owners.append(training_examples(settings, str(adapter), layout.seed_of(run, settings)))
    samples = [random.Random(seed).sample(rows, min(config.examples, len(rows))) for rows in owners]
    return mix.mix([item for rows in samples for item in rows], [], config.steps, GATES_BATCH, 0, seed)
