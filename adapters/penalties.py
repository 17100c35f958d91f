"""Anti-forgetting terms: each is a small callable `(model, call) -> scalar` that a trainer adds to its loss. What a
term compares with is taken once, before the first step, so no adapter has to be switched off and on in training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from moltlm.adapters import frozen
from moltlm.adapters.serve import TextModel
from moltlm.data.errors import BadInput
from moltlm.data.topk import TopK
from moltlm.data.types import Exchange, Message

Penalty = Callable[[Any, int], torch.Tensor]
"""Called with the model in training and the number of losses computed so far; gives a weighted scalar."""

Rows = list[tuple[list[int], list[int]]]


class Anchor:
    """Keeps the model where it was when this was built, on given answers.

    output * T^2 * KL(start || model) at temperature T, in nats a token (Hinton et al. 2015; on neutral prompts the
    explicit KL of RLHF, on replayed ones the distillation of Li and Hoiem 2016), and feature * the squared difference
    of the hidden states after the given `layers`, as a share of their squared size (after Romero et al. 2015). Only
    hidden states of the start are stored: the head makes its logits of the last ones again.
    """

    def __init__(
        self,
        text: TextModel,
        exchanges: list[Exchange],
        batch: int,
        output: float = 0.0,
        feature: float = 0.0,
        layers: list[int] | None = None,
        temperature: float = 1.0,
        autocast: bool = False,
    ) -> None:
        self._tokenizer = text.tokenizer
        self._rows = text.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
        self._batch = min(batch, len(self._rows))
        self._output, self._feature, self._temperature = output, feature, temperature
        self._layers = _layers(text.model, layers or []) if feature else []
        head = text.model.get_output_embeddings()
        moves = any(weight.requires_grad for weight in head.parameters())
        self._head = copy.deepcopy(head).requires_grad_(False) if moves else head
        device = text.model.device.type
        self._autocast = autocast
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=autocast):
            self._start = [
                [state.cpu() for state in _hidden(text, [row], [*self._layers, -1])[0]] for row in self._rows
            ]

    def __call__(self, model: Any, call: int) -> torch.Tensor:
        return self._compared(model, _turn(call, self._batch, len(self._rows)))

    @torch.no_grad()
    def drift(self, model: Any) -> float:
        """The term over all answers, batch by batch."""
        n = len(self._rows)
        parts = [range(first, min(first + self._batch, n)) for first in range(0, n, self._batch)]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self._autocast):
            return float(sum(float(self._compared(model, list(part))) * len(part) for part in parts)) / n

    def _compared(self, model: Any, chosen: list[int]) -> torch.Tensor:
        text = TextModel(model, self._tokenizer)
        now = _hidden(text, [self._rows[i] for i in chosen], [*self._layers, -1])
        kl = feature = torch.zeros((), device=model.device)
        tokens = 0
        for i, states in zip(chosen, now, strict=True):
            start = [state.to(model.device) for state in self._start[i]]
            tokens += len(start[-1])
            if self._output:
                old, new = (
                    torch.log_softmax(_logits(model, head, last) / self._temperature, -1)
                    for head, last in ((self._head, start[-1]), (model.get_output_embeddings(), states[-1]))
                )
                kl = kl + (old.exp() * (old - new)).sum()
            for then, here in zip(start[:-1], states[:-1], strict=True):
                then = then.float()
                feature = feature + (here.float() - then).square().sum() / then.square().sum() / len(self._layers)
        return self._output * self._temperature**2 * kl / tokens + self._feature * feature / len(chosen)


class SelfDistillation:
    """KL(teacher || model), nats a token, on what the model itself says to the prompts; the teacher is the same model,
    told who it is by a system prompt (on-policy self-distillation, SDFT; Shenfeld et al. 2026, arXiv:2601.19897).

    The teacher is the model as it was at the start where the adapter is `fresh`, which turned off is that; else the
    model as it is now.
    """

    def __init__(
        self,
        text: TextModel,
        prompts: list[list[Message]],
        system: str,
        batch: int,
        tokens: int,
        fresh: bool,
        seed: int,
    ) -> None:
        self._tokenizer, self._prompts, self._batch = text.tokenizer, prompts, min(batch, len(prompts))
        self._system: Message = {"role": "system", "content": system}
        self._tokens, self._fresh, self._seed = tokens, fresh, seed

    def __call__(self, model: Any, call: int) -> torch.Tensor:
        text = TextModel(model, self._tokenizer)
        prompts = [self._prompts[i] for i in _turn(call, self._batch, len(self._prompts))]
        model.eval()
        answers = text.generate(prompts, self._tokens, self._batch, temperature=1.0, seed=self._seed + call)
        told = text.encode([[self._system, *prompt] for prompt in prompts], answers)
        with torch.no_grad(), _without(model) if self._fresh else nullcontext():
            teacher = [torch.log_softmax(logits.float(), -1) for logits in text.completion_logits(told)]
        model.train()
        total, count = torch.zeros((), device=model.device), 0
        for old, logits in zip(teacher, text.completion_logits(text.encode(prompts, answers)), strict=True):
            total = total + (old.exp() * (old - torch.log_softmax(logits.float(), -1))).sum()
            count += len(old)
        return total / count


@contextmanager
def _without(model: Any) -> Iterator[None]:
    """The trained adapter turned off, by its scale: PEFT's own way touches what is trainable."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer.set_scale("default", 0.0)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_scale("default", 1.0)


class StoredDistribution:
    """weight * KL(stored || model), nats a token, over the stored tokens and any other: dark experience replay (Buzzega
    et al. 2020) on what the buffer keeps, without the model that made it."""

    def __init__(
        self, text: TextModel, exchanges: list[Exchange], stored: list[TopK], batch: int, weight: float
    ) -> None:
        self._tokenizer = text.tokenizer
        self._rows = text.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
        for (_, answer), row in zip(self._rows, stored, strict=True):
            if len(answer) != len(row.ids):
                raise BadInput(
                    "The buffer's distributions are of another tokenizer.", "Build it again: molt replay build CONFIG"
                )
        self._ids = [torch.from_numpy(row.ids.astype("int64")) for row in stored]
        both = [torch.cat([_tensor(row.logprobs), _tensor(row.log_tail)[:, None]], 1) for row in stored]
        self._stored = [torch.log_softmax(row, -1) for row in both]
        self._batch = min(batch, len(self._rows))
        self._weight = weight

    def __call__(self, model: Any, call: int) -> torch.Tensor:
        chosen = _turn(call, self._batch, len(self._rows))
        found = TextModel(model, self._tokenizer).completion_logits([self._rows[i] for i in chosen])
        total, tokens = torch.zeros((), device=model.device), 0
        for i, logits in zip(chosen, found, strict=True):
            new = torch.log_softmax(logits.float(), -1)
            ids, old = self._ids[i].to(new.device), self._stored[i].to(new.device)
            listed = new.gather(1, ids)
            rest = new.scatter(1, ids, -torch.inf).logsumexp(-1, keepdim=True)
            total = total + (old.exp() * (old - torch.cat([listed, rest], 1))).sum()
            tokens += len(ids)
        return self._weight * total / tokens


class StayNear:
    """weight / 2 * sum of F (theta - theta_start)^2 over what is trained: EWC with a Fisher diagonal `fisher`
    (Kirkpatrick et al. 2017, eq. 3), L2-SP without one (Li et al. 2018)."""

    def __init__(self, model: Any, weight: float, fisher: dict[str, torch.Tensor] | None = None) -> None:
        self._weight = weight
        self._start = {name: value.detach().float().clone() for name, value in frozen.trainable(model)}
        self._fisher = {}
        if fisher is not None:
            if missing := self._start.keys() - fisher.keys():
                raise BadInput(
                    f"The Fisher information lacks {min(missing)}.", "Compute it for the adapter that is trained."
                )
            self._fisher = {name: fisher[name].to(value.device) for name, value in self._start.items()}

    def __call__(self, model: Any, call: int) -> torch.Tensor:
        parts = []
        for name, value in frozen.trainable(model):
            squared = (value - self._start[name]).square()
            parts.append((squared * self._fisher[name] if self._fisher else squared).sum())
        return self._weight / 2 * torch.stack(parts).sum()


class Orthogonal:
    """weight * sum of (A_below A^T)^2: what the adapter reads is orthogonal to what those beneath it read (O-LoRA, Wang
    et al. 2023, eq. 8)."""

    def __init__(self, weight: float, name: str, beneath: list[str]) -> None:
        self._weight, self._name, self._beneath = weight, name, beneath

    def __call__(self, model: Any, call: int) -> torch.Tensor:
        parts = []
        for module in model.modules():
            below = getattr(module, "lora_A", {})
            if self._name in below:
                ours = below[self._name].weight
                parts += [(below[name].weight @ ours.T).square().sum() for name in self._beneath if name in below]
        return self._weight * torch.stack(parts).sum()


def fisher(
    text: TextModel, exchanges: list[Exchange], seed: int, progress: Callable[[int, int, str], None] | None = None
) -> dict[str, torch.Tensor]:
    """The diagonal of the Fisher information of what is trained, by parameter name: the mean over the prompts of the
    squared gradient of log p(answer), the answer's tokens being drawn from the model itself and not those given
    (Kunstner et al. 2019 on why). Changes nothing."""
    trained = dict(frozen.trainable(text.model))
    found = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in trained.items()}
    rows = text.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
    generator = torch.Generator().manual_seed(seed)
    for done, row in enumerate(rows, 1):
        logprobs = torch.log_softmax(text.completion_logits([row])[0].float(), -1)
        drawn = torch.multinomial(logprobs.detach().exp().cpu(), 1, generator=generator).to(logprobs.device)
        gradients = torch.autograd.grad(logprobs.gather(1, drawn).sum(), list(trained.values()), allow_unused=True)
        for name, gradient in zip(trained, gradients, strict=True):
            if gradient is not None:
                found[name] += gradient.float().square() / len(rows)
        if progress:
            progress(done, len(rows), "Fisher")
    return found


def _turn(call: int, batch: int, n: int) -> list[int]:
    return [(call * batch + i) % n for i in range(batch)]


def _tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(values.astype("float32"))


def _layers(model: Any, wanted: list[int]) -> list[int]:
    """Indices into the hidden states, where 0 is the embeddings; every fourth layer unless said otherwise."""
    count = model.config.get_text_config().num_hidden_layers
    for layer in wanted:
        if not 1 <= layer < count:
            raise BadInput(
                f"protect.feature_layers names layer {layer}, and there are {count}.", f"Use 1 to {count - 1}."
            )
    return wanted or list(range(max(1, count // 4), count, max(1, count // 4)))


def _hidden(text: TextModel, rows: Rows, layers: list[int]) -> list[list[torch.Tensor]]:
    """For each row, for each of the layers, (completion tokens, width) where the completion is predicted."""
    out = text.forward(rows, logits_to_keep=1, output_hidden_states=True)
    return [
        [out.hidden_states[layer][i, -len(answer) - 1 : -1] for layer in layers] for i, (_, answer) in enumerate(rows)
    ]


def _logits(model: Any, head: Any, hidden: torch.Tensor) -> torch.Tensor:
    """As the architecture makes them of its last hidden states."""
    config = model.config.get_text_config()
    logits = head(hidden.to(next(head.parameters()).dtype)).float()
    logits = logits * (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits
