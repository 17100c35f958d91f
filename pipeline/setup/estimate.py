"""How much memory each stage of a configuration needs, from the shape of the model. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from moltlm.adapters.config import ShapeConfig
from moltlm.pipeline.config import Config

BITS = {"nf4": 4.5, "bf16": 16.0, "fp32": 32.0}
DOUBLE_QUANT_BITS = (
    4.127  # Dettmers et al. 2023 (QLoRA), section 3: 0.127 bits a weight for the doubly quantised scales
)
GIB = 2**30
LIBRARIES = {"cpu": 0.8, "cuda": 0.5}
"""GiB of the process without a model: a training of the tiny test model peaks at 0.80. Of a GPU, CUDA's context."""
DEQUANTISED_GIB = 2.0
"""As `adapters.cpu.ROOM_GIB`."""
PROMPT, WRITTEN = 48, 48
"""Tokens of a prompt, with its template, and of an answer of the persona."""
Device = Literal["cpu", "cuda"]
PERSONALITY, TASKS, EVALUATION = "personality", "tasks", "evaluation"


@dataclass(frozen=True)
class Memory:
    """GiB at the peak of a stage, by part, on the device that computes. Without a GPU `libraries` are the process
    itself, with one its context there."""

    weights: float
    adapters: float
    optimizer: float
    activations: float
    logits: float
    libraries: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Batch:
    """What a forward pass computes at a time: `tokens`, those of which have a label, and the length of a row."""

    tokens: int
    labels: int
    length: int


def linear_parameters(shape: ShapeConfig) -> int:
    """In the attention and MLP matrices: what is quantised, and what all-linear LoRA adapts."""
    return shape.layers * sum(rows * columns for rows, columns in _matrices(shape))


def parameters(shape: ShapeConfig) -> int:
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    norms = (2 * shape.layers + 1) * shape.hidden_size
    return linear_parameters(shape) + embeddings + norms


def lora_parameters(shape: ShapeConfig, r: int) -> int:
    return shape.layers * sum(r * (rows + columns) for rows, columns in _matrices(shape))


def stages(config: Config, device: Device) -> dict[str, Memory]:
    """The stages by name: training of the personality and of tasks, and what is measured."""
    memory = {PERSONALITY: training_memory(config, device)}
    if config.tasks:
        memory[TASKS] = task_memory(config, device)
    return memory | {EVALUATION: evaluation_memory(config, device)}


def training_memory(config: Config, device: Device = "cuda") -> Memory:
    """For DPO with precomputed reference on pairs of the configured length. On a CPU a prompt is computed once for both
    sides."""
    pairs, prompt = config.adapters().micro_batch(config.personality.batch_size), _prompt(config)
    chosen, rejected = _text(config) - prompt, min(config.pairs.max_new_tokens, config.model.max_length - prompt)
    anchors = config.dpo.kl_batch if config.dpo.kl_weight else 0
    if device == "cpu":
        tokens, labels = pairs * (prompt + chosen + rejected), pairs * (chosen + rejected)
        batch = Batch(tokens + anchors * (prompt + chosen), labels + anchors * chosen, prompt + chosen)
    else:  # fitted to what was measured: anchors are not there at the peak, and one side's logits are
        batch = Batch(pairs * (2 * prompt + chosen + rejected), pairs * chosen, prompt + chosen)
    full = config.personality.parameters == "full"
    trained = parameters(config.model.shape) if full else lora_parameters(config.model.shape, config.lora.r)
    return _training(config, device, batch, trained, 0 if full else 1, full)


def task_memory(config: Config, device: Device) -> Memory:
    """For the largest task, above the personality. Rows are as long as those that are replayed; half of their tokens
    have a label."""
    length = _text(config)
    rows = max(config.adapters().micro_batch(task.batch_size) for task in config.tasks.values())
    batch = Batch(rows * length, rows * length // 2, length)
    return _training(config, device, batch, lora_parameters(config.model.shape, config.lora.r), 2)


def evaluation_memory(config: Config, device: Device) -> Memory:
    """For the comparison of a state with the base, whose logits are both there, beside the adapters of all tasks."""
    model, shape = config.model, config.model.shape
    length = max(_text(config), _prompt(config) + config.persona_eval.max_new_tokens)
    labels = model.eval_batch_size * (length - _prompt(config))
    width = 4 if device == "cpu" or model.precision == "fp32" else 2
    states = model.eval_batch_size * length * shape.layers * 2 * _kv(shape) * 4
    hidden = model.eval_batch_size * length * 4 * (shape.hidden_size + shape.intermediate_size)
    adapters = (1 + len(config.tasks)) * lora_parameters(shape, config.lora.r) * 4
    return _memory(config, device, adapters, 0, states + hidden, 2 * labels * shape.vocab_size * width)


def saved_floats(shape: ShapeConfig, r: int, batch: Batch) -> float:
    """Numbers that autograd keeps of a packed fp32 batch (`data.packing`) with LoRA in place (`adapters.fused`),
    without the logits.

    A layer keeps of each token: the inputs of both norms and what they give, the queries and what attention gives; four
    times the inner width of the MLP; the shares of attention; keys and values of its block; and each LoRA's inner
    product.
    """
    blocks = 2 * _kv(shape) * 2
    token = 6 * shape.hidden_size + 4 * shape.intermediate_size + shape.heads * batch.length + blocks + 7 * r
    return batch.tokens * (shape.layers * token + shape.hidden_size)


def _training(config: Config, device: Device, batch: Batch, trained: int, adapters: int, full: bool = False) -> Memory:
    shape, train = config.model.shape, config.train
    state_bytes = 2 if train.optimizer == "paged_adamw_8bit" else 8
    optimizer = trained * (4 + state_bytes)  # gradients in fp32, and Adam's two moments
    logits = batch.labels * shape.vocab_size * 4 * 3  # logits, softmax and gradient
    activations = _activations(config, device, batch)
    return _memory(config, device, 0 if full else adapters * trained * 4, optimizer, activations, logits, full)


def _activations(config: Config, device: Device, batch: Batch) -> float:
    shape, checkpoints = config.model.shape, config.train.gradient_checkpointing
    if device == "cpu":
        one = saved_floats(shape.model_copy(update={"layers": 1}), config.lora.r, batch)
        checkpointed = batch.tokens * (shape.layers + 1) * shape.hidden_size + one
        return 4 * (checkpointed if checkpoints else saved_floats(shape, config.lora.r, batch))
    width = 34 * shape.hidden_size + 6 * shape.intermediate_size  # Korthikanti et al. 2022, eq. 1, without dropout
    token = shape.layers * shape.hidden_size * 2 + width if checkpoints else shape.layers * width
    return batch.tokens * token


def _memory(
    config: Config, device: Device, adapters: float, optimizer: float, activations: float, logits: float,
    full: bool = False,
) -> Memory:  # fmt: skip
    weights = parameters(config.model.shape) * 4 if full else _weights(config, device)
    values = (weights, adapters, optimizer, activations, logits)
    return Memory(*(value / GIB for value in values), LIBRARIES[device])


def _weights(config: Config, device: Device) -> float:
    """Bytes of the base. On a CPU also those of its file, which is mapped, and the dequantised copy that it keeps."""
    model, linear, every = config.model, linear_parameters(config.model.shape), parameters(config.model.shape)
    bits = DOUBLE_QUANT_BITS if model.precision == "nf4" and model.double_quant else BITS[model.precision]
    wide = model.precision == "fp32" or (model.precision == "nf4" and model.compute_dtype == "float32")
    weights = (linear * bits + (every - linear) * (32 if wide else 16)) / 8
    if device == "cuda":
        return weights
    copy = linear * 4 if model.precision == "nf4" and linear * 4 <= DEQUANTISED_GIB * GIB else 0
    return weights + copy + every * 2


def _prompt(config: Config) -> int:
    return min(PROMPT, config.model.max_length - 1)


def _text(config: Config) -> int:
    """Tokens of a prompt and an answer of the persona, which is at least as long as those that the base writes."""
    return min(config.model.max_length, _prompt(config) + max(WRITTEN, config.pairs.max_new_tokens))


def _kv(shape: ShapeConfig) -> int:
    return shape.hidden_size // shape.heads * shape.kv_heads


def _matrices(shape: ShapeConfig) -> list[tuple[int, int]]:
    hidden, inner, kv = shape.hidden_size, shape.intermediate_size, _kv(shape)
    attention = [(hidden, hidden), (hidden, kv), (hidden, kv), (hidden, hidden)]
    return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]
