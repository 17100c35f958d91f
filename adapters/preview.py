"""Pairs as the trainer gets them: which tokens it reads, and which it learns from."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM
from trl import DPOConfig

from moltlm.adapters.config import AdaptersConfig
from moltlm.adapters.protections.base import ActiveProtections
from moltlm.adapters.trainers import PersonalityTrainer
from moltlm.adapters.training_data import preferences
from moltlm.data.types import Pair


@dataclass(frozen=True)
class Token:
    text: str
    learned: bool


@dataclass(frozen=True)
class TokenizedPair:
    """Both sides of a pair with prompt and template, after truncation to `model.max_length`."""

    pair: Pair
    chosen: list[Token]
    rejected: list[Token]


def tokenized(config: AdaptersConfig, tokenizer: Any, pair: Pair) -> TokenizedPair:
    """Tokenize a pair with the real trainer and its collator, on a model of one tiny layer: the result depends on the
    tokenizer, the template and the settings alone. Both sides are empty where truncation leaves nothing to learn."""
    tiny = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = PersonalityTrainer(
            model=LlamaForCausalLM(tiny),
            args=DPOConfig(
                output_dir=folder,
                max_length=config.model.max_length,
                precompute_ref_log_probs=True,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=preferences([pair]),
            processing_class=tokenizer,
            reference="none",
            protections=ActiveProtections({}),
        )
    dataset: Any = trainer.train_dataset
    if not len(dataset):
        return TokenizedPair(pair, [], [])
    batch = trainer.data_collator([dataset[0]])
    chosen, rejected = (
        [
            Token(tokenizer.decode([token]), bool(learned))
            for token, learned, attended in zip(*(batch[key][side].tolist() for key in _KEYS), strict=True)
            if attended
        ]
        for side in (0, 1)
    )
    return TokenizedPair(pair, chosen, rejected)


_KEYS = ("input_ids", "completion_mask", "attention_mask")
