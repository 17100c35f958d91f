"""The two training stages: the personality (DPO or SFT, LoRA or full), and a task above a frozen personality."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, set_seed
from trl import DPOConfig, GRPOConfig, SFTConfig
from trl.experimental.orpo import ORPOConfig

from moltlm.adapters import card, fit, frozen, mixture, subspace
from moltlm.adapters.base import Base
from moltlm.adapters.callbacks import Average, KeepTo, StopOnDrift
from moltlm.adapters.config import GROUP, AdaptersConfig, Monitored, ProtectConfig
from moltlm.adapters.fit import Measure, Trained
from moltlm.adapters.mixture import Mixture
from moltlm.adapters.penalties import (
    Anchor,
    Orthogonal,
    Penalty,
    SelfDistillation,
    StayNear,
    StoredDistribution,
    fisher,
)
from moltlm.adapters.serve import TextModel, encode_prompt
from moltlm.adapters.trainers import ChatTrainer, OddsTrainer, PersonalityTrainer, RewardTrainer, TermsTrainer
from moltlm.data.config import TaskConfig
from moltlm.data.errors import BadInput
from moltlm.data.topk import TopK
from moltlm.data.types import RAW, Exchange, Message, Pair, Progress, silent

Reward = Callable[[list[list[Message]], list[str]], list[float]]
"""How good each answer to each prompt is."""
FISHER = "fisher.safetensors"


@dataclass(frozen=True)
class Protected:
    """What a task stage is to keep: neutral answers of the base, replayed exchanges, and what the buffer stores of the
    personality's distribution over the first of those, if anything."""

    neutral: list[Exchange] = field(default_factory=list)
    replay: list[Exchange] = field(default_factory=list)
    stored: list[TopK] = field(default_factory=list)


def train_personality(
    config: AdaptersConfig,
    base: Base,
    pairs: list[Pair],
    neutral: list[Exchange],
    folder: Path,
    seed: int,
    progress: Progress = silent,
    start: Path | None = None,
    measure: Measure | None = None,
    at: tuple[int, ...] = (),
    spec: str = "",
    reward: Reward | None = None,
) -> Trained:
    """Train on `pairs` and write the adapter (or the full weights) to `folder`. Consumes `base`.

    `start` continues an existing personality, which is then also the DPO reference. `neutral` is needed for a KL or EWC
    weight above 0 and to stop on drift, `spec` (what the model is told to be) for sdft, and `reward` for grpo, which
    use the prompts of the pairs alone. `measure` is called with the model in eval mode at the steps `at`; such a
    training is not resumable.
    """
    settings = config.personality
    set_seed(seed)
    if settings.parameters == "full":
        model = base.model.float().requires_grad_(True)
    elif start is not None:
        card.check_base(start, base.digest)
        model = PeftModel.from_pretrained(base.model, str(start), adapter_name="default", is_trainable=True)
    else:
        model = get_peft_model(base.model, fit.lora(config.lora))
    penalties: list[Penalty] = []
    if config.dpo.kl_weight:
        text = TextModel(model, base.tokenizer)
        batch = fit.micro(config, config.dpo.kl_batch)
        penalties.append(Anchor(text, neutral, batch, output=config.dpo.kl_weight, autocast=fit.autocast(config)))
    if config.dpo.ewc_weight:
        importance = fisher(TextModel(model, base.tokenizer), neutral, seed, progress)
        penalties.append(StayNear(model, config.dpo.ewc_weight, importance))
    arguments = fit.arguments(
        config, settings.batch_size, settings.learning_rate, settings.steps, seed, folder, resumable=measure is None
    )
    if settings.method == "sdft":
        if not spec:
            raise BadInput("personality.method=sdft needs the spec's text.", "Give persona.yaml a system_prompt.")
        prompts, text = [pair.prompt for pair in pairs], TextModel(model, base.tokenizer)
        random.Random(seed).shuffle(prompts)
        share = fit.micro(config, settings.batch_size)
        fresh = start is None and settings.parameters == "lora"
        penalties.append(SelfDistillation(text, prompts, spec, share, settings.sample_tokens, fresh, seed))
    trainer = _personality_trainer(config, arguments, model, base.tokenizer, pairs, penalties, reward)
    watch = _monitor(trainer, config, settings, neutral)
    checks = fit.run(trainer, base.tokenizer, folder, "personality", progress, measure, at, watch)
    training = {
        **settings.model_dump(),
        **(config.dpo.model_dump() if settings.method == "dpo" else {"kl_weight": config.dpo.kl_weight}),
        "pairs": len(pairs),
        "seed": seed,
        "start": str(start.name) if start else "base",
        "seconds": round(checks.seconds, 1),
    }
    fit.save(trainer.model, folder, "default")
    card.write(folder, card.Manifest("personality", config.model.id, base.digest, config.model.precision, {}, training))
    return checks


def _personality_trainer(
    config: AdaptersConfig,
    arguments: dict[str, Any],
    model: Any,
    tokenizer: Any,
    pairs: list[Pair],
    penalties: list[Penalty],
    reward: Reward | None,
) -> Any:
    dpo, given = config.dpo, {"model": model, "processing_class": tokenizer, "penalties": penalties}
    if config.personality.method in ("sft", "sdft"):
        exchanges = [Exchange(pair.prompt, pair.chosen) for pair in pairs]
        settings = SFTConfig(**arguments, completion_only_loss=True)
        kind = ChatTrainer if config.personality.method == "sft" else TermsTrainer
        return kind(args=settings, train_dataset=completions(exchanges, tokenizer, config.model.max_length), **given)
    if config.personality.method == "grpo":
        if reward is None:
            raise ValueError("grpo needs a reward")
        rows, tokens = [(pair.prompt, "") for pair in pairs], config.personality.sample_tokens
        return rewarded(arguments, rows, lambda prompts, said, _: reward(prompts, said), GROUP, tokens, **given)
    if dpo.loss == "orpo":
        return OddsTrainer(args=ORPOConfig(**arguments, beta=dpo.beta), train_dataset=preferences(pairs), **given)
    simpo = dpo.loss == "simpo"  # the mean over tokens, without a reference (Meng et al. 2024, arXiv:2405.14734)
    settings = DPOConfig(
        **arguments,
        beta=dpo.beta,
        loss_type=["sigmoid_norm" if simpo else dpo.loss, "sft"],
        loss_weights=[1.0, dpo.nll_weight],
        f_divergence_type=dpo.divergence,
        label_smoothing=dpo.label_smoothing,
        precompute_ref_log_probs=True,
    )
    margin = dpo.margin if simpo else 0.0
    given = {**given, "reference": dpo.reference, "margin": margin}
    return PersonalityTrainer(args=settings, train_dataset=preferences(pairs), **given)


def rewarded(
    arguments: dict[str, Any],
    rows: list[tuple[list[Message], str]],
    reward: Callable[[list[list[Message]], list[str], list[str]], list[float]],
    group: int,
    tokens: int,
    **given: Any,
) -> RewardTrainer:
    """GRPO on prompts with what `reward` is told beside what was said, `group` answers of at most `tokens` to each."""
    settings = GRPOConfig(
        **{key: value for key, value in arguments.items() if key != "max_length"},
        num_generations=group,
        max_completion_length=tokens,
        beta=0.0,
        temperature=1.0,
    )

    def judged(prompts: list[Any], completions: list[Any], answer: list[str], **others: Any) -> list[float]:
        return reward(prompts, [completion[0]["content"].strip() for completion in completions], answer)

    dataset = Dataset.from_list([{"prompt": prompt, "answer": answer} for prompt, answer in rows])
    return RewardTrainer(reward_funcs=judged, args=settings, train_dataset=dataset, **given)


def train_task(
    config: AdaptersConfig,
    base: Base,
    name: str,
    task: TaskConfig,
    mix: list[Exchange],
    beneath: dict[str, Path],
    folder: Path,
    seed: int,
    progress: Progress = silent,
    protected: Protected = Protected(),
    start: Path | None = None,
) -> Trained:
    """Train a task adapter on `mix` (in its order, `task.steps` equal batches), with the adapters `beneath` (lowest
    first, the personality among them) active and frozen. Consumes `base`.

    `start` is the adapter to train further, of the same layers beneath (the shared layout); without it a fresh one is
    trained. Raises BadInput when a term of `config.protect` lacks what it compares with.
    """
    set_seed(seed)
    model, hashes = above(config, base, name, beneath, start)
    text, protect = TextModel(model, base.tokenizer), config.protect
    callbacks = _subspace(text, protect, protected, name, start is None, seed)
    before = {key: value.detach().clone() for key, value in frozen.trainable(model)}
    importance = _fisher(text, protect, protected, start, name, seed, progress) if protect.ewc_weight else None
    batch = len(mix) // task.steps
    trainer = ChatTrainer(
        model=model,
        args=SFTConfig(
            **fit.arguments(config, batch, task.learning_rate, task.steps, seed, folder),
            completion_only_loss=True,
            train_sampling_strategy="sequential",
        ),
        train_dataset=completions(mix, base.tokenizer, config.model.max_length),
        processing_class=base.tokenizer,
        penalties=terms(text, config, protected, importance, name, list(beneath)),
    )
    callbacks += _callbacks(trainer, config, protected)
    checks = fit.run(trainer, base.tokenizer, folder, name, progress, callbacks=callbacks)
    _interpolate(trainer.model, before, protect.interpolation)
    fit.save(trainer.model, folder, name)
    if protect.layout == "mixture":
        mixture.save(folder, mixture.separable(config))
    if importance is not None:
        save_file({_plain(key, name): value.cpu() for key, value in importance.items()}, folder / FISHER)
    changed = protect.model_dump(exclude_defaults=True)
    training = {**task.model_dump(), **changed, "examples": len(mix), "seed": seed, "seconds": round(checks.seconds, 1)}
    card.write(folder, card.Manifest(name, config.model.id, base.digest, config.model.precision, hashes, training))
    return checks


def above(
    config: AdaptersConfig, base: Base, name: str, beneath: dict[str, Path], start: Path | None
) -> tuple[PeftModel, dict[str, str]]:
    """The model with the adapters `beneath` active and frozen and the one called `name` alone trainable, fresh or from
    `start`; and the hashes of those beneath."""
    hashes = {label: card.check_base(path, base.digest).weights_sha256 for label, path in beneath.items()}
    model = stack(base, beneath)
    if start is None:
        settings = fit.lora(config.lora)
        model.add_adapter(name, subspace.doubled(settings) if config.protect.subspace == "corda" else settings)
        if config.protect.layout == "mixture":
            mixture.attach(model, name, mixture.separable(config))
    else:
        card.check_base(start, base.digest)
        model.load_adapter(str(start), adapter_name=name)
        mixture.restore(model, name, start)
    tuner: Any = model.base_model
    tuner.set_adapter([*beneath, name])  # makes all of them trainable
    for key, parameter in model.named_parameters():
        parameter.requires_grad = f".{name}." in key
    return model, hashes


def train_gates(
    config: AdaptersConfig,
    base: Base,
    composed: Path,
    experts: list[int],
    mix: list[Exchange],
    beneath: dict[str, Path],
    folder: Path,
    seed: int,
    progress: Progress = silent,
) -> Trained:
    """Gate the adapter in `composed`, whose rank is cut into `experts`, token by token, and train the gates alone on
    `mix`, in its order, for `config.router.steps`. Consumes `base`."""
    set_seed(seed)
    model, hashes = above(config, base, "experts", beneath, composed)
    gates = Mixture("token", experts, len(experts))
    mixture.attach(model, "experts", gates)
    for key, parameter in model.named_parameters():
        parameter.requires_grad = key.endswith(".lora_A.experts.gate.weight")
    how = config.router
    trainer = ChatTrainer(
        model=model,
        args=SFTConfig(
            **fit.arguments(config, len(mix) // how.steps, how.learning_rate, how.steps, seed, folder),
            completion_only_loss=True,
            train_sampling_strategy="sequential",
        ),
        train_dataset=completions(mix, base.tokenizer, config.model.max_length),
        processing_class=base.tokenizer,
        penalties=[],
    )
    checks = fit.run(trainer, base.tokenizer, folder, "gates", progress)
    fit.save(trainer.model, folder, "experts")
    mixture.save(folder, gates)
    training = {**how.model_dump(), "examples": len(mix), "seed": seed, "seconds": round(checks.seconds, 1)}
    card.write(folder, card.Manifest("gates", config.model.id, base.digest, config.model.precision, hashes, training))
    return checks


def stack(base: Base, beneath: dict[str, Path]) -> PeftModel:
    """The base with these adapters loaded, none of them trainable."""
    (first, path), *others = beneath.items()
    model = PeftModel.from_pretrained(base.model, str(path), adapter_name=first)
    for label, folder in others:
        model.load_adapter(str(folder), adapter_name=label)
    return model


def terms(
    text: TextModel,
    config: AdaptersConfig,
    protected: Protected,
    importance: dict[str, torch.Tensor] | None,
    name: str,
    beneath: list[str],
) -> list[Penalty]:
    protect, autocast = config.protect, fit.autocast(config)
    batch, live = fit.micro(config, protect.anchor_batch), protect.distill_weight if protect.distill == "live" else 0.0
    found: list[Penalty] = []
    if protect.kl_weight:
        neutral = _needed(protected.neutral, "kl_weight", "neutral answers")
        found.append(
            Anchor(text, neutral, batch, protect.kl_weight, temperature=protect.temperature, autocast=autocast)
        )
    if live or protect.feature_weight:
        replay = _needed(protected.replay, "distill_weight or feature_weight", "replayed exchanges")
        weights, layers = (live, protect.feature_weight), protect.feature_layers
        found.append(Anchor(text, replay, batch, *weights, layers, protect.temperature, autocast))
    if protect.distill_weight and not live:
        stored = _needed(protected.stored, "distill=stored", "distributions in the buffer (replay.distribution=int8)")
        found.append(StoredDistribution(text, protected.replay[: len(stored)], stored, batch, protect.distill_weight))
    if importance is not None:
        found.append(StayNear(text.model, protect.ewc_weight, importance))
    if protect.l2_weight:
        found.append(StayNear(text.model, protect.l2_weight))
    if protect.orthogonal_weight:
        found.append(Orthogonal(protect.orthogonal_weight, name, beneath))
    return found


def _callbacks(trainer: ChatTrainer, config: AdaptersConfig, protected: Protected) -> list[TrainerCallback]:
    found = _monitor(trainer, config, config.protect, protected.neutral)
    if config.protect.average_decay is not None:
        trainer.average = Average(config.protect.average_decay)
        found.append(trainer.average)
    return found


def _monitor(
    trainer: Any, config: AdaptersConfig, settings: Monitored, neutral: list[Exchange]
) -> list[TrainerCallback]:
    """Of the drift from where the model is now, if it is to be watched."""
    if settings.stop_kl is None:
        return []
    text = TextModel(trainer.model, trainer.processing_class)
    answers = _needed(neutral, "stop_kl", "neutral answers")
    looked = Anchor(text, answers, 8, output=1.0, autocast=fit.autocast(config))
    return [StopOnDrift(trainer, looked.drift, settings.stop_kl, settings.stop_every)]


def _subspace(
    text: TextModel, protect: ProtectConfig, protected: Protected, name: str, fresh: bool, seed: int
) -> list[TrainerCallback]:
    """Before penalties are made, since the adapter may begin elsewhere."""
    if protect.subspace == "none":
        return []
    if protect.subspace == "osf":
        return [KeepTo(subspace.away_from_strongest(text.model, name, protect.subspace_directions, seed))]
    kept = _needed(protected.replay, "subspace=corda", "replayed exchanges")
    return [KeepTo(subspace.knowledge_preserving(text, name, kept, fresh))]


def _needed(rows: list[Any], setting: str, what: str) -> list[Any]:
    if not rows:
        raise BadInput(f"protect.{setting} needs {what}, and there are none.", "Set it to its default, or add some.")
    return rows


def _fisher(
    text: TextModel,
    protect: ProtectConfig,
    protected: Protected,
    start: Path | None,
    name: str,
    seed: int,
    progress: Progress,
) -> dict[str, torch.Tensor]:
    """Of the adapter that is to be trained, on replayed answers; with what a shared adapter brings from earlier tasks,
    decayed (online EWC, Schwarz et al. 2018)."""
    replay = _needed(protected.replay, "ewc_weight", "replayed exchanges")
    found = fisher(text, replay, seed, progress)
    if start is not None and (start / FISHER).is_file():
        earlier = load_file(start / FISHER)
        for key, value in found.items():
            value += protect.ewc_decay * earlier[_plain(key, name)].to(value.device)
    return found


def _plain(key: str, name: str) -> str:
    """A parameter's name without that of its adapter, which a later stage may call otherwise."""
    return key.replace(f".{name}.", ".")


@torch.no_grad()
def _interpolate(model: Any, before: dict[str, torch.Tensor], share: float) -> None:
    """Between the weights before the training and after it (WiSE-FT, Wortsman et al. 2022, eq. 1)."""
    if share < 1:
        for key, value in frozen.trainable(model):
            value.copy_(torch.lerp(before[key].to(value), value, share))


def preferences(pairs: list[Pair]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": pair.prompt,
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ]
    )


def completions(exchanges: list[Exchange], tokenizer: Any, max_length: int) -> Dataset:
    """For TRL; where plain texts are among them, with the tokens and labels that TRL would make of a conversation."""
    if not any(item.prompt[0]["role"] == RAW for item in exchanges):
        return Dataset.from_list([{"prompt": item.prompt, "completion": [_answer(item)]} for item in exchanges])
    rows = []
    for item in exchanges:
        given = encode_prompt(tokenizer, item.prompt)
        if item.prompt[0]["role"] == RAW:
            whole = given + tokenizer(item.answer, add_special_tokens=False)["input_ids"]
        else:
            whole = tokenizer.apply_chat_template([*item.prompt, _answer(item)], tokenize=True, return_dict=True)[
                "input_ids"
            ]
        labels = [-100] * len(given) + whole[len(given) :]
        rows.append({"input_ids": whole[:max_length], "labels": labels[:max_length]})
    return Dataset.from_list(rows)


def _answer(item: Exchange) -> Message:
    return {"role": "assistant", "content": item.answer}
