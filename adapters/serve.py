"""A base with named adapters in memory, served in any state: text, log-probabilities, KL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from moltlm.adapters import card, chat_template, cpu, decoding, fused, mixture
from moltlm.adapters import continuations as continuation_scores
from moltlm.adapters.base import Base
from moltlm.adapters.embed import StaticEmbedding
from moltlm.adapters.rendering import encode_answers, encode_prompt
from moltlm.data import memory, packing
from moltlm.data.errors import BadInput
from moltlm.data.io import batches
from moltlm.data.prompted import prompted
from moltlm.data.state import BASE, State
from moltlm.data.topk import TopK
from moltlm.data.types import Divergence, Exchange, Message, Progress, TokenScore, silent


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers from this seed on; those of the caller go on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def sampling(temperature: float, top_p: float = 1.0) -> dict[str, Any]:
    """Options of `generate`: greedy at temperature 0, above it from the likeliest tokens that have the probability
    `top_p` together."""
    if not temperature:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": top_p}


def _score(logprobs: torch.Tensor, target: list[int]) -> TokenScore:
    """From (t, vocabulary)."""
    tokens = torch.tensor(target, device=logprobs.device)
    return TokenScore(float(logprobs.gather(1, tokens[:, None]).sum()), len(target))


class TextModel:
    """A model as it is now, with its tokenizer: generated answers, and the log-probabilities of given answers."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @torch.no_grad()
    def generate(
        self,
        prompts: list[list[Message]],
        max_new_tokens: int,
        batch_size: int,
        progress: Progress = silent,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """Answers to the prompts: greedy at temperature 0, above it sampled from all tokens. Samples depend on the seed
        and the batch size alone."""
        with seeded(seed) if temperature else nullcontext():
            return self._generate(prompts, max_new_tokens, batch_size, progress, temperature)

    def _generate(
        self, prompts: list[list[Message]], max_new_tokens: int, batch_size: int, progress: Progress, temperature: float
    ) -> list[str]:
        ids = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        answers: dict[int, str] = {}
        for group in batches(sorted(range(len(ids)), key=lambda i: len(ids[i])), batch_size):
            written = memory.in_parts(
                lambda rows: self.decoded(self._continued(list(rows), max_new_tokens, temperature)),
                [ids[i] for i in group],
            )
            answers.update(zip(group, written, strict=True))
            progress(len(answers), len(prompts), "answers")
        return [answers[i] for i in range(len(prompts))]

    def _continued(self, rows: list[list[int]], max_new_tokens: int, temperature: float) -> Any:
        """The tokens after each row of a batch."""
        if packing.possible(self.model):
            stops = self.model.generation_config.eos_token_id
            return decoding.generate(self.model, rows, max_new_tokens, stops, temperature)
        tokens, mask = self.left_padded(rows)
        with cpu.answering(self.model):
            out = self.model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                **sampling(temperature),
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return out[:, tokens.shape[1] :]

    def decoded(self, tokens: Any) -> list[str]:
        """The answers in the tokens of several rows, without thoughts."""
        return list(map(chat_template.without_thought, self.tokenizer.batch_decode(tokens, skip_special_tokens=True)))

    @torch.no_grad()
    def score(
        self, prompts: list[list[Message]], completions: list[str], batch_size: int, progress: Progress = silent
    ) -> list[TokenScore]:
        """The log-probability of each completion."""
        rows = self.encode(prompts, completions)
        scores: dict[int, TokenScore] = {}
        for group in self._batches(rows, batch_size):
            scores.update(zip(group, memory.in_parts(self._scored, [rows[i] for i in group]), strict=True))
            progress(len(scores), len(rows), "scores")
        return [scores[i] for i in range(len(rows))]

    def _logprobs(self, rows: Sequence[tuple[list[int], list[int]]]) -> Iterator[torch.Tensor]:
        """(completion tokens, vocabulary) for each row."""
        return (torch.log_softmax(logits.float(), -1) for logits in self.completion_logits(list(rows)))

    def _scored(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[TokenScore]:
        return [_score(logprobs, row[1]) for logprobs, row in zip(self._logprobs(rows), rows, strict=True)]

    def score_continuations(
        self, starts: list[str], continuations: list[list[str]], batch_size: int, progress: Progress = silent
    ) -> list[list[float]]:
        """The log-probability of each of the continuations of a plain text, after a space, in nats."""
        begun = [self.tokenizer(start)["input_ids"] for start in starts]
        rows = [
            [self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"] for text in each]
            for each in continuations
        ]
        scores: dict[int, list[float]] = {}
        for group in batches(sorted(range(len(rows)), key=lambda i: len(begun[i])), batch_size):
            values = memory.in_parts(
                lambda part: self._continuations([begun[i] for i in part], [rows[i] for i in part], batch_size), group
            )
            scores.update(zip(group, values, strict=True))
            progress(len(scores), len(rows), "relevance")
        return [scores[i] for i in range(len(rows))]

    def _continuations(
        self, starts: list[list[int]], rows: list[list[list[int]]], batch_size: int
    ) -> list[list[float]]:
        """Where they are padded, at most `batch_size` continuations in a pass: their logits take the memory."""
        if packing.possible(self.model):
            return continuation_scores.score_packed(self.model, starts, rows)
        size = min(batch_size, max(map(len, rows)))
        pieces = [(i, piece) for i, each in enumerate(rows) for piece in batches(each, size)]
        scores: list[list[float]] = [[] for _ in rows]
        for group in batches(pieces, max(1, batch_size // size)):
            count = max(len(piece) for _, piece in group)
            even = [piece + piece[:1] * (count - len(piece)) for _, piece in group]
            values = continuation_scores.score(self.model, *self.left_padded([starts[i] for i, _ in group]), even)
            for (i, piece), row in zip(group, values, strict=True):
                scores[i].extend(row[: len(piece)])
        return scores

    def _batches(self, rows: list[tuple[list[int], list[int]]], size: int) -> Iterator[list[int]]:
        """Indices of rows, in batches: of like prompts where a prompt is computed once, else of like length, which need
        little padding."""
        if packing.possible(self.model):
            return batches(sorted(range(len(rows)), key=lambda i: (len(rows[i][0]), rows[i][0])), size)
        return batches(sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1])), size)

    def encode(self, prompts: list[list[Message]], completions: list[str]) -> list[tuple[list[int], list[int]]]:
        """Prompt and completion tokens; an empty completion counts as one end-of-turn token."""
        rows = []
        for prompt, completion in zip(prompts, completions, strict=True):
            start, (answer,) = encode_answers(self.tokenizer, prompt, [completion], closed=False)
            rows.append((start, answer or [self.tokenizer.eos_token_id]))
        return rows

    def completion_logits(self, rows: list[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
        """(completion tokens, vocabulary) for each row; only the columns that predict a completion are projected."""
        if packing.possible(self.model):
            return packing.completion_logits(self.model, rows)
        longest = max(len(answer) for _, answer in rows)
        out = self.forward(rows, logits_to_keep=longest + 1)
        return [out.logits[i, -len(answer) - 1 : -1] for i, (_, answer) in enumerate(rows)]

    def forward(self, rows: list[tuple[list[int], list[int]]], **kwargs: Any) -> Any:
        """The model's output for prompts and completions, padded on the left, so that completions end together."""
        tokens, mask = self.left_padded([prompt + answer for prompt, answer in rows])
        prompt_mask = mask.clone()
        for i, (_, answer) in enumerate(rows):
            prompt_mask[i, tokens.shape[1] - len(answer) :] = 0
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with prompted(prompt_mask):
            return self.model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False, **kwargs)

    def left_padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and attention mask, (rows, longest row)."""
        width = max(len(row) for row in rows)
        pad = self.tokenizer.pad_token_id
        device = self.model.device
        tokens = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        return tokens, mask


@dataclass(frozen=True)
class TopRow:
    """The likeliest tokens of one answer's distribution, and the sum of p log p (t,) over all others, from which the
    loss by leaving them out is computed."""

    top: TopK
    tail_plogp: np.ndarray


class Served(TextModel):
    """Implements `data.types.ChatModel`. Adapters are switched, never reloaded, and never trained here."""

    def __init__(self, base: Base) -> None:
        super().__init__(base.model, base.tokenizer)
        self.digest, self.layers, self.template = base.digest, base.layers, base.template
        self.current = BASE
        self.manifests: dict[str, card.Manifest] = {}
        self._base_states: dict[tuple[tuple[int, ...], tuple[int, ...]], torch.Tensor] = {}
        self._base_continuations: dict[tuple[str, str], float] = {}

    @property
    def adapters(self) -> list[str]:
        return list(self.model.peft_config) if isinstance(self.model, PeftModel) else []

    def load(self, name: str, folder: Path) -> None:
        """Add an adapter under a name. Raises BadInput if it was trained on another base."""
        manifest = card.check_base(folder, self)
        if name in self.adapters:
            raise BadInput(f"An adapter named {name} is already loaded.", "Give it another name.")
        if isinstance(self.model, PeftModel):
            self.model.load_adapter(str(folder), adapter_name=name)
        else:
            self.model = PeftModel.from_pretrained(self.model, str(folder), adapter_name=name)
        mixture.restore(self.model, name, folder)
        fused.fuse(self.model)
        self.manifests[name] = manifest
        self.activate(self.current)

    def unload(self, name: str) -> None:
        """Free an adapter that no state needs any more. Another one has to be left."""
        if name in map(str, self.current.gated):
            self.activate(BASE)
        self.model.delete_adapter(name)
        del self.manifests[name]

    def scale(self, name: str, factor: float) -> None:
        """Serve a loaded adapter at this strength in every state: 0 is off, 1 as it was trained. Two calls do not add
        up."""
        if name not in self.adapters:
            raise BadInput(f"No adapter {name} is loaded.", f"Loaded: {', '.join(self.adapters) or 'none'}.")
        for module in self.model.modules():
            if isinstance(module, LoraLayer):
                module.set_scale(name, factor)

    @contextmanager
    def state(self, state: State) -> Iterator[None]:
        before = self.current
        self.activate(state)
        try:
            yield
        finally:
            self.activate(before)

    def activate(self, state: State) -> None:
        """Serve this state from now on; the routes of a routed state are one gated adapter.

        Raises:
            BadInput: One of its adapters is not loaded.
        """
        names = list(map(str, state.gated))
        missing = [name for name in names if name not in self.adapters]
        if missing:
            raise BadInput(f"No adapter {missing[0]} is loaded.", f"Loaded: {', '.join(self.adapters) or 'none'}.")
        if isinstance(self.model, PeftModel):
            tuner: Any = self.model.base_model
            if names:
                tuner.enable_adapter_layers()
                tuner.set_adapter(names)
            else:
                tuner.disable_adapter_layers()
            self.model.requires_grad_(False).eval()  # set_adapter makes what it activates trainable
        self.current = state

    def score_continuations(
        self, starts: list[str], continuations: list[list[str]], batch_size: int, progress: Progress = silent
    ) -> list[list[float]]:
        """As `TextModel.score_continuations`. Those of the base are computed once, since it never changes."""
        values: dict[tuple[str, str], float] = self._base_continuations if self.current == BASE else {}
        missing = [
            place
            for place, (start, texts) in enumerate(zip(starts, continuations, strict=True))
            if any((start, text) not in values for text in texts)
        ]
        scores = super().score_continuations(
            [starts[i] for i in missing], [continuations[i] for i in missing], batch_size, progress
        )
        for i, row in zip(missing, scores, strict=True):
            values.update(((starts[i], text), value) for text, value in zip(continuations[i], row, strict=True))
        return [[values[start, text] for text in texts] for start, texts in zip(starts, continuations, strict=True)]

    @cached_property
    def _embedding(self) -> StaticEmbedding:
        return StaticEmbedding(self.model, self.tokenizer)

    def embed(self, texts: list[str]) -> np.ndarray:
        return self._embedding(texts)

    @torch.no_grad()
    def top_k(self, exchanges: list[Exchange], k: int, batch_size: int, progress: Progress = silent) -> list[TopRow]:
        """The current state's distribution over each answer: its `k` likeliest tokens, and the mass of the rest."""
        rows = self.encode([item.prompt for item in exchanges], [item.answer for item in exchanges])
        distributions: dict[int, TopRow] = {}
        for group in self._batches(rows, batch_size):
            chunk = [rows[i] for i in group]
            top = memory.in_parts(lambda part: [_top_row(each, k) for each in self._logprobs(part)], chunk)
            distributions.update(zip(group, top, strict=True))
            progress(len(distributions), len(rows), "distributions")
        return [distributions[i] for i in range(len(rows))]

    def kl_from(
        self,
        reference: State,
        prompts: list[list[Message]],
        completions: list[str],
        batch_size: int,
        progress: Progress = silent,
    ) -> list[float]:
        """For each completion, the mean KL(reference || current state) over its tokens, in nats."""
        return [row.kl for row in self.score_against(reference, prompts, completions, batch_size, progress)]

    @torch.no_grad()
    def score_against(
        self,
        reference: State,
        prompts: list[list[Message]],
        completions: list[str],
        batch_size: int,
        progress: Progress = silent,
    ) -> list[Divergence]:
        rows = self.encode(prompts, completions)
        results: dict[int, Divergence] = {}
        for group in self._batches(rows, batch_size):
            chunk = [rows[i] for i in group]
            compared = memory.in_parts(lambda part: self._compared(reference, part), chunk)
            results.update(zip(group, compared, strict=True))
            progress(len(results), len(rows), "KL")
        return [results[i] for i in range(len(rows))]

    def _compared(self, reference: State, rows: Sequence[tuple[list[int], list[int]]]) -> list[Divergence]:
        """The score of each completion, and its mean KL from the reference."""
        compared = []
        reference_logits = self._reference_logits(reference, list(rows))
        for row, p, q in zip(rows, reference_logits, self.completion_logits(list(rows)), strict=True):
            log_p, log_q = torch.log_softmax(p.float(), -1), torch.log_softmax(q.float(), -1)
            kl = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
            compared.append(Divergence(_score(log_q, row[1]), kl))
        return compared

    def _reference_logits(self, reference: State, rows: list[tuple[list[int], list[int]]]) -> Iterable[torch.Tensor]:
        """`completion_logits` in another state. Packed, the hidden states of the base are kept: they never change, and
        every state is compared with them."""
        if reference != BASE or not packing.possible(self.model):
            with self.state(reference):
                return self.completion_logits(rows)
        keys = [(tuple(prompt), tuple(answer)) for prompt, answer in rows]
        if new := [row for key, row in zip(keys, rows, strict=True) if key not in self._base_states]:
            with self.state(BASE):
                computed = packing.completion_states(self.model, new)
            self._base_states |= {(tuple(row[0]), tuple(row[1])): each for row, each in zip(new, computed, strict=True)}
        states = [self._base_states[key] for key in keys]
        return self.model.get_output_embeddings()(torch.cat(states)).split([len(each) for each in states])


def _top_row(logprobs: torch.Tensor, k: int) -> TopRow:
    """From (t, vocabulary)."""
    top = logprobs.topk(min(k, logprobs.shape[1]), dim=-1)
    rest = logprobs.scatter(1, top.indices, -torch.inf)
    tail_plogp = torch.special.entr(rest.exp()).sum(-1).neg()
    row = TopK(*(part.cpu().numpy() for part in (top.indices, top.values, rest.logsumexp(-1).clamp(min=-60))))
    return TopRow(row, tail_plogp.cpu().numpy())
