"""The first training of a personality, and for most runs the only one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from moltlm.data import coherence, teacher
from moltlm.data.errors import BadInput
from moltlm.data.topk import TopK
from moltlm.data.types import Exchange, Message
from moltlm.pipeline.identity import identity, prose_of
from moltlm.pipeline.run import Artifact, Run, once_per_config
from moltlm.pipeline.stages.material import load_carried
from moltlm.pipeline.stages.pairs import classifier, load_exchanges, load_pairs, load_persona, pairs

if TYPE_CHECKING:
    from moltlm.adapters.personality import Reward
    from moltlm.adapters.training import TrainingResult


@once_per_config
def initial(run: Run) -> Artifact:
    """Train the personality adapter: DPO with NLL and explicit KL, or SFT. `molt train personality CONFIG`"""
    config, data = run.config, pairs(run)
    distilled = _distilled(run)
    inputs = {
        "pairs": data.fingerprint,
        "seed": config.run.seed,
        "prose": prose_of(config.train, config.dpo.kl_on),
        **{name: identity(getattr(config, name)) for name in ("lora", "train", "personality", "dpo")},
    }

    def make(folder: Path) -> dict[str, Any]:
        from moltlm.adapters import base
        from moltlm.adapters.personality import PersonalityJob, train_personality

        run.release()
        with run.console.progress("personality") as progress:
            job = PersonalityJob(
                config=config.adapters(),
                base=base.load(config.model),
                folder=folder,
                seed=config.run.seed,
                progress=progress,
                pairs=load_pairs(data, "train"),
                references=run.references,
                neutral=load_exchanges(data, "neutral_train"),
                spec=teacher.brief(load_persona(run).spec),
                reward=_in_character(run) if config.personality.method == "grpo" else None,
                distilled=distilled,
            )
            result = train_personality(job)
        return training_facts(result)

    return run.do("personality", inputs, make)


def _distilled(run: Run) -> tuple[list[Exchange], list[TopK]]:
    """The own answers that were carried from another base, with the distributions over them; none unless
    `dpo.distill_weight` is on. Raises BadInput if it is on, and none were carried."""
    if not run.config.dpo.distill_weight:
        return [], []
    lessons = load_carried(run).lessons
    if not lessons[1]:
        raise BadInput(
            "dpo.distill_weight needs distributions that were carried from another base with the same vocabulary, and "
            "there are none.",
            "Turn it off: dpo.distill_weight=0",
        )
    return lessons


def _in_character(run: Run) -> Reward:
    """The style classifier's probability of a coherent answer, 0 of any other. So its score of what was trained by it
    is no evidence; the other measures of the persona are."""
    style = classifier(run)

    def reward(prompts: list[list[Message]], answers: list[str]) -> list[float]:
        questions = [prompt[-1]["content"] for prompt in prompts]
        coherent = [coherence.check(*row, 0.0, 1.0).coherent for row in zip(questions, answers, strict=True)]
        return [value * ok for value, ok in zip(style.probability(answers), coherent, strict=True)]

    return reward


def training_facts(result: TrainingResult) -> dict[str, Any]:
    return {
        "seconds": round(result.seconds, 1),
        "steps": result.steps,
        "peak_gib": round(result.peak_gib, 2),
        "trainable_parameters": result.parameters,
        "frozen_tensors_unchanged": result.frozen_tensors,
        "trainable_tensors_moved": result.changed_tensors,
    }
