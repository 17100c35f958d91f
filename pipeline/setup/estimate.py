"""How much memory a configuration needs, from the shape of the model. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from moltlm.adapters.config import ShapeConfig
from moltlm.pipeline.config import Config

BITS = {"nf4": 4.5, "bf16": 16.0, "fp32": 32.0}
DOUBLE_QUANT_BITS = (
    4.127  # Dettmers et al. 2023 (QLoRA), section 3: 0.127 bits a weight for the doubly quantised scales
)
GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """GiB at the peak of the personality stage, by part, on the device that trains."""

    weights: float
    adapters: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return self.weights + self.adapters + self.optimizer + self.activations + self.logits


def linear_parameters(shape: ShapeConfig) -> int:
    """In the attention and MLP matrices: what is quantised, and what all-linear LoRA adapts."""
    return shape.layers * sum(rows * columns for rows, columns in _matrices(shape))


def parameters(shape: ShapeConfig) -> int:
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    norms = (2 * shape.layers + 1) * shape.hidden_size
    return linear_parameters(shape) + embeddings + norms


def lora_parameters(shape: ShapeConfig, r: int) -> int:
    return shape.layers * sum(r * (rows + columns) for rows, columns in _matrices(shape))


def training_memory(config: Config) -> Memory:
    """An estimate for DPO with precomputed reference on pairs of the configured length: within about a third of what
    was measured on the embedded model."""
    shape, model = config.model.shape, config.model
    precision = model.precision
    bits = DOUBLE_QUANT_BITS if precision == "nf4" and model.double_quant else BITS[precision]
    linear = linear_parameters(shape)
    rest = (parameters(shape) - linear) * (32 if precision == "fp32" else 16)
    full = config.personality.parameters == "full"
    trained = parameters(shape) if full else lora_parameters(shape, config.lora.r)
    weights = (linear * bits + rest) / 8 if not full else trained * 4
    adapters = 0 if full else trained * 4
    state_bytes = 2 if config.train.optimizer == "paged_adamw_8bit" else 8
    optimizer = trained * (4 + state_bytes)  # gradients in fp32, and Adam's two moments
    sequences = 2 * config.personality.batch_size // config.train.gradient_accumulation
    tokens = sequences * _typical_tokens(config)
    width = 34 * shape.hidden_size + 6 * shape.intermediate_size  # Korthikanti et al. 2022, eq. 1, without dropout
    per_token = (
        shape.layers * shape.hidden_size * 2 + width if config.train.gradient_checkpointing else shape.layers * width
    )
    logits = tokens * shape.vocab_size * 4 * 3 / 2  # half of the tokens are answers; logits, softmax and gradient
    return Memory(*(value / GIB for value in (weights, adapters, optimizer, tokens * per_token, logits)))


def _typical_tokens(config: Config) -> int:
    """A prompt of 48 tokens and an answer as long as the rejected ones, at most the maximum."""
    return min(config.model.max_length, 48 + config.pairs.max_new_tokens)


def _matrices(shape: ShapeConfig) -> list[tuple[int, int]]:
    kv = shape.hidden_size // shape.heads * shape.kv_heads
    hidden, inner = shape.hidden_size, shape.intermediate_size
    attention = [(hidden, hidden), (hidden, kv), (hidden, kv), (hidden, hidden)]
    return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]
