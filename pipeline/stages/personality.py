"""The personality adapter of a run: trained on pairs, and then on introspection if that is on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moltlm.data.mix import mix
from moltlm.data.state import Adapter
from moltlm.data.types import Exchange
from moltlm.pipeline.identity import identity
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages.initial import initial, training_facts
from moltlm.pipeline.stages.introspection import TRAINING, introspection, load_texts
from moltlm.pipeline.stages.pairs import load_exchanges, load_pairs, pairs


def personality(run: Run) -> Artifact:
    """The personality as it is served: after its first training, or after introspection if that is on."""
    return introspected(run) if run.config.introspection.on else initial(run)


@once_per_config
def introspected(run: Run) -> Artifact:
    """Train the personality further on what it wrote with its spec before it, without the spec, by SFT. Part of
    `molt train personality CONFIG`"""
    config, settings = run.config, run.config.introspection
    start, texts = initial(run), introspection(run)
    inputs = {
        "personality": start.fingerprint,
        "introspection": texts.fingerprint,
        "training": identity(settings, include=TRAINING),
    }

    def make(folder: Path) -> dict[str, Any]:
        from moltlm.adapters import base
        from moltlm.adapters.personality import PersonalityJob, train_personality

        run.release()
        changes = {"method": "sft", "steps": settings.steps, "learning_rate": settings.learning_rate}
        adapters = config.adapters()
        with run.console.progress("introspection training") as progress:
            job = PersonalityJob(
                config=adapters.model_copy(update={"personality": adapters.personality.model_copy(update=changes)}),
                base=base.load(config.model),
                folder=folder,
                seed=config.run.seed,
                progress=progress,
                pairs=load_pairs(pairs(run), "train"),
                examples=_mixed(run, load_texts(texts)),
                neutral=load_exchanges(pairs(run), "neutral_train"),
                start=start.folder,
            )
            result = train_personality(job)
        facts = training_facts(result)
        seconds = round(start.facts["seconds"] + facts["seconds"], 1)
        return {**facts, "seconds": seconds, "steps": start.facts["steps"] + facts["steps"]}

    return run.do("introspection-training", inputs, make)


def _mixed(run: Run, texts: list[Exchange]) -> list[Exchange]:
    """The texts of the introspection and chosen answers of the pairs, in training order."""
    config, settings = run.config, run.config.introspection
    batch = config.personality.batch_size
    chosen = [Exchange(pair.prompt, pair.chosen) for pair in load_pairs(pairs(run), "train")]
    count = round(settings.steps * batch * settings.pairs_share)
    return mix(texts, chosen, settings.steps, batch, count, config.run.seed)


def load_adapters(run: Run, artifacts: dict[Adapter, Artifact]) -> Any:
    """The run's served base with these adapters loaded (`data.types.ChatModel`)."""
    for adapter, artifact in artifacts.items():
        if str(adapter) not in run.base.adapters:
            run.base.load(str(adapter), artifact.folder)
    return run.base
