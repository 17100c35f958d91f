"""TRL's trainers with four changes: an LM head that scores only positions with a label, an explicit reference, the
moments of the protections, and checkpoints that hold what is trained and nothing else."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import trl.trainer.dpo_trainer
import trl.trainer.sft_trainer
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.utils.data import DataLoader
from trl import DPOTrainer, GRPOConfig, GRPOTrainer, SFTTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from moltlm.adapters import frozen, fused, processes, references
from moltlm.adapters.callbacks import ProtectionMoments
from moltlm.adapters.divided import DividedTrainer
from moltlm.adapters.protections.base import ActiveProtections
from moltlm.adapters.self_distillation import SelfDistillation
from moltlm.data import packing
from moltlm.data.types import Message

_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


def add_compact_lm_head(
    model: Any, temperature: float = 1.0, cast_lm_head_to_fp32: bool = False, outputs: tuple[str, ...] = ()
) -> None:
    """TRL's `add_fused_lm_head` for machines without Triton: packs the rows where the model allows it
    (`data.packing`), and projects only the positions that have a label.

    TRL 1.16 computes padding, and each copy of a prompt, and scores both there, over many fp32 passes. `entropy` and
    `mean_logits`, which only feed logs, are NaN; the other outputs keep the meaning that TRL gives them.
    """
    config = model.config.get_text_config()
    special = any(getattr(config, name, None) not in (None, 1, 1.0) for name in _SCALED_LOGITS)
    if torch.cuda.is_available() or special or temperature != 1.0 or "log_sum_sq_probs" in outputs:
        add_fused_lm_head(model, temperature, cast_lm_head_to_fp32, outputs or ("log_probs",))
        return
    original = model.forward

    def forward(*args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return original(*args, **({"labels": labels} if labels is not None else {}), **kwargs)
        kwargs["use_cache"] = False
        kwargs.pop("num_items_in_batch", None)
        mask = labels[:, 1:] != -100
        hidden = _labelled_states(model, mask, args, kwargs)
        labels = labels[:, 1:]
        logits = model.get_output_embeddings()(hidden).float()
        token_log_probs = -F.cross_entropy(logits, labels[mask], reduction="none")
        with torch.no_grad():
            top = logits.argmax(-1) == labels[mask]
        zeros = torch.zeros(mask.shape, dtype=token_log_probs.dtype, device=token_log_probs.device)
        unknown = zeros.masked_fill(mask, torch.nan)
        log_probs = zeros.masked_scatter(mask, token_log_probs)
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=unknown,
            mean_logits=unknown,
            is_top1=torch.zeros_like(mask).masked_scatter(mask, top),
            label_mask=mask,
        )

    model.forward = forward


def _labelled_states(model: Any, mask: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """(labels, width): the last hidden states where `mask` (rows, length - 1) has a label to predict."""
    named = {name for name, value in kwargs.items() if value is not None}
    if args or not named <= {"input_ids", "attention_mask", "use_cache"} or not packing.possible(model):
        body = model.model if model.base_model is model else model.base_model  # Llama 4 names another part
        return body(*args, **kwargs).last_hidden_state[:, :-1][mask]
    tokens = kwargs["input_ids"]
    present = torch.ones_like(tokens) if kwargs.get("attention_mask") is None else kwargs["attention_mask"]
    # nothing reads what a row's last token predicts
    inner = present.bool() & (present.flip(1).cumsum(1).flip(1) > 1)
    packed = packing.pack([row[real].tolist() for row, real in zip(tokens, inner, strict=True) if real.any()])
    places = torch.zeros_like(tokens)
    columns = torch.arange(packed.places.shape[1])
    lengths = torch.tensor(packed.lengths)
    places[inner] = packed.places[columns < lengths[:, None]]
    return packing.hidden_states(model, packed).index_select(0, places[:, :-1][mask])


trl.trainer.dpo_trainer.add_fused_lm_head = add_compact_lm_head
trl.trainer.sft_trainer.add_fused_lm_head = add_compact_lm_head
# TRL hashes all weights to name its own cache of reference values, which `_precompute_ref_logps` replaces
trl.trainer.dpo_trainer.hash_module = lambda module: ""


TRAINED = "trained.safetensors"
PROTECTION = "protection:"
"""Prefix of what protections carry in a checkpoint."""


class StageTrainer(DividedTrainer):
    """What all trainers of this project share. Protections act at their moments; what is trained stays fp32 whatever
    TRL does with it; checkpoints hold exactly that, and the protections' state. The Trainer's own way to load a
    checkpoint would activate and unfreeze the first adapter only."""

    def __init__(self, *args: Any, protections: ActiveProtections, **kwargs: Any) -> None:
        trainer: Any = self
        trainer.protections, trainer._calls = protections, 0
        trainer.step_batches: list[Any] = []  # what the step under way was trained on
        trainable = _freeze(kwargs["model"])
        fused.fuse(kwargs["model"])
        super().__init__(*args, **kwargs)
        _unfreeze(trainer.model, trainable)
        _leave_routers(trainer)
        if protections.members:
            trainer.add_callback(ProtectionMoments(trainer, protections))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        trainer: Any = self
        tensors = {name: value.detach() for name, value in frozen.trainable(trainer.model)}
        tensors |= {f"{PROTECTION}{name}": value for name, value in trainer.protections.state().items()}
        folder = Path(output_dir or trainer.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, folder / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        trainer: Any = self
        tensors = load_file(Path(resume_from_checkpoint) / TRAINED)
        with torch.no_grad():
            for name, value in frozen.trainable(trainer.model):
                value.copy_(tensors[name])
        carried = {
            name.removeprefix(PROTECTION): value for name, value in tensors.items() if name.startswith(PROTECTION)
        }
        trainer.protections.load_state(carried)
        step = json.loads((Path(resume_from_checkpoint) / "trainer_state.json").read_text())["global_step"]
        trainer._calls = step * trainer.args.gradient_accumulation_steps

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `adapters.card` writes one when the training has ended."""


class PersonalityTrainer(StageTrainer, DPOTrainer):
    """DPO whose reference is the model as it stands when the trainer is built, the mean of what that gives, or none.

    The reference log-probabilities are computed before the first step with whatever adapters are active then. At that
    point a fresh LoRA is the identity and a continued one is itself, so this is the start of the stage by
    construction: no adapter is switched off, and there is nothing to put back. Values that are in the folder
    `references` are taken from there, and new ones added.
    """

    def __init__(
        self,
        *args: Any,
        protections: ActiveProtections,
        reference: str = "start",
        margin: float = 0.0,
        references: Path | None = None,
        **kwargs: Any,
    ) -> None:
        self._reference, self._margin, self._references = reference, margin, references
        super().__init__(*args, protections=protections, **kwargs)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """The pairs are encoded by `adapters.training_data`."""
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if self._reference == "none":
            # sigmoid_norm takes the mean over the chosen tokens: what is set aside here for each comes off their margin
            chosen = [self._margin / self.beta * len(ids) for ids in dataset["chosen_ids"]]
            return dataset.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", [0.0] * len(dataset))
        keys, stored, file = references.pair_keys(dataset, self.args.max_length), {}, None
        if self._references is not None:
            file = self._references / f"{references.digest(self.model, self.accelerator.mixed_precision)}.json"
            stored = processes.from_first(partial(references.load, file))
        missing = [i for i, key in enumerate(keys) if key not in stored]
        if missing:
            values = self._score_sides(dataset.select(missing), batch_size)
            stored |= dict(zip([keys[i] for i in missing], values, strict=True))
            if file is not None and processes.is_first():
                references.save(file, stored)
        first, second = zip(*[stored[key] for key in keys], strict=True)
        if self._reference == "mean":
            first, second = ([sum(side) / len(side)] * len(side) for side in (first, second))
        return dataset.add_column("ref_chosen_logps", list(first)).add_column("ref_rejected_logps", list(second))

    def _score_sides(self, dataset: Dataset, batch_size: int) -> list[references.Sides]:
        """Log-probabilities of both sides of each pair under the model as it stands. The processes take the batches in
        turn."""
        scored: dict[int, list[references.Sides]] = {}
        self.model.eval()  # type: ignore[union-attr]
        batches = DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator)  # type: ignore[arg-type]
        for place, batch in enumerate(batches):
            if place % processes.count() == processes.number():
                scored[place] = self._score_batch(self._prepare_inputs(batch))
        every = {place: sides for each in processes.gathered(scored) for place, sides in each.items()}
        return [sides for place in sorted(every) for sides in every[place]]

    def _score_batch(self, batch: dict[str, Any]) -> list[references.Sides]:
        model: Any = self.model
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        with torch.no_grad(), self.accelerator.autocast():
            out = model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                labels=labels,
                fused_lm_head=True,
            )
        chosen, rejected = out.log_probs.sum(1).float().cpu().chunk(2)
        return list(zip(chosen.tolist(), rejected.tolist(), strict=True))

    def labels_of(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return batch["completion_mask"][: len(batch["ref_chosen_logps"]), 1:] == 1

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        with self._weighted():
            result = super()._compute_loss(model, inputs, return_outputs)
        return _penalised(self, result, model, return_outputs)

    @contextmanager
    def _weighted(self) -> Iterator[None]:
        """Weigh the losses by this process's part of a micro-batch: the preference loss is a mean over its pairs, the
        NLL one over the tokens of the chosen sides."""
        kinds, weights = self.loss_types, self.loss_weights
        shares = zip(kinds, weights, (self.part.rows, self.part.tokens), strict=True)
        parts = [(kind, weight * share) for kind, weight, share in shares if share]
        self.loss_types, self.loss_weights = [kind for kind, _ in parts], [weight for _, weight in parts]
        try:
            yield
        finally:
            self.loss_types, self.loss_weights = kinds, weights


class OddsTrainer(StageTrainer, ORPOTrainer):
    """ORPO (Hong et al. 2024, arXiv:2403.07691), with protections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._metrics: Any = {"train": defaultdict(list)}
        super().__init__(*args, **kwargs)

    def tokenize_row(self, feature: dict[str, list[int]], model: Any = None) -> dict[str, list[int]]:
        """A pair that is encoded by `adapters.training_data`, in the columns that ORPO reads."""
        prompt = feature["prompt_ids"]
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side in ("chosen", "rejected"):
            answer = feature[f"{side}_ids"][: max(0, self.max_length - len(prompt))]
            row[f"{side}_input_ids"] = prompt + answer
            row[f"{side}_attention_mask"] = [1] * (len(prompt) + len(answer))
            row[f"{side}_labels"] = [-100] * len(prompt) + answer
        return row

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return _penalised(self, result, model, return_outputs)


class RewardTrainer(StageTrainer, GRPOTrainer):
    """GRPO (Shao et al. 2024, arXiv:2402.03300) with protections, and without a reference of TRL's own, which would
    be the wrong one for stacked adapters. The order of the prompts depends on the epoch, so a resumed training sees the
    same prompts as an uninterrupted one."""

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler: Any = super()._get_train_sampler(dataset)
        sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(self.args.seed + epoch)
        return sampler

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # TRL leaves the division by accumulation steps to the loss
        return _penalised(self, result, model, return_outputs, 1 / self.current_gradient_accumulation_steps)


class ChatTrainer(StageTrainer, SFTTrainer):
    """SFT on completions, with protections."""

    def labels_of(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return batch["labels"][:, 1:] != -100

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # with num_items_in_batch the trainer leaves the division by accumulation steps to the loss
        share = 1 / self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1.0
        return _penalised(self, result, model, return_outputs, share)


class SelfDistillationTrainer(ChatTrainer):
    """Trains on `distillation` alone: the examples of the data set give the steps their rhythm and nothing else."""

    def __init__(self, *args: Any, distillation: SelfDistillation, **kwargs: Any) -> None:
        self._distillation = distillation
        super().__init__(*args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        trainer: Any = self
        share = 1 / self.current_gradient_accumulation_steps
        loss = self._distillation(model, trainer._calls) * share
        return _penalised(self, loss, model, False, share)


def reward_trainer(
    arguments: dict[str, Any],
    rows: list[tuple[list[Message], str]],
    reward: Callable[[list[list[Message]], list[str], list[str]], list[float]],
    group: int,
    max_new_tokens: int,
    **common: Any,
) -> RewardTrainer:
    """GRPO without a KL term of its own.

    Args:
        rows: prompts, each with the reference that `reward` gets beside the sampled answer.
        group: answers to one prompt that are compared.
        common: further arguments of the trainer.
    """
    settings = GRPOConfig(
        **{key: value for key, value in arguments.items() if key != "max_length"},
        num_generations=group,
        max_completion_length=max_new_tokens,
        beta=0.0,
        temperature=1.0,
    )

    def score(prompts: list[Any], completions: list[Any], reference: list[str], **others: Any) -> list[float]:
        return reward(prompts, [completion[0]["content"].strip() for completion in completions], reference)

    dataset = Dataset.from_list([{"prompt": prompt, "reference": reference} for prompt, reference in rows])
    return RewardTrainer(reward_funcs=score, args=settings, train_dataset=dataset, **common)


def _leave_routers(trainer: Any) -> None:
    """No loss for the balance of a mixture of experts: its routers and experts are frozen."""
    trainer.aux_loss_enabled = False
    config = trainer.model.config.get_text_config()
    if getattr(config, "output_router_logits", False):
        config.output_router_logits = False


def _freeze(model: Any) -> set[str]:
    """The names of what is to be trained, frozen while TRL sets up: on a quantised base it rounds trainable tensors to
    bf16, where small updates vanish."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.requires_grad_(False)
    return names


def _unfreeze(model: Any, trainable: set[str]) -> None:
    """Exactly what was to be trained, in fp32. The copy `ref` that TRL adds for an adapter is not needed here, since
    the reference is precomputed."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in trainable
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _penalised(trainer: Any, result: Any, model: Any, return_outputs: bool, share: float = 1.0) -> Any:
    """The loss with the penalties of the protections, times `share`."""
    if not (trainer.model.training and trainer.part.leads):
        return result
    penalty = trainer.protections.penalty(model, trainer._calls)
    if penalty is None:
        return result
    extra = penalty * share
    trainer._metrics["train"]["penalty"].append(float(extra.detach()))
    return (result[0] + extra, result[1]) if return_outputs else result + extra
