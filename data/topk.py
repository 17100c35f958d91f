"""The personality's distribution over each answer, compressed: the K likeliest tokens and the mass of the rest.

With it, a replay buffer is a target for distillation (dark experience replay, Buzzega et al. 2020, arXiv:2004.07211)
that does not need the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("fp16", "int8")


@dataclass(frozen=True)
class TopK:
    """The distributions at the t tokens of one answer.

    `ids` (t, k) are the likeliest tokens, `logprobs` (t, k) their log-probabilities in nats, descending, and `log_tail`
    (t,) is the logarithm of the mass of all other tokens.
    """

    ids: np.ndarray
    logprobs: np.ndarray
    log_tail: np.ndarray


def pack(rows: list[TopK], kind: str, vocab_size: int) -> dict[str, np.ndarray]:
    """Pack the answers into flat arrays for a safetensors file. `unpack` returns them, rounded.

    Args:
        kind: fp16 rounds each log-probability; int8 has 256 even levels between the largest and the smallest of a
            token's K log-probabilities, which are stored in fp16.
    """
    ids = np.concatenate([row.ids for row in rows])
    values = np.concatenate([row.logprobs for row in rows]).astype(np.float32)
    arrays = {
        "lengths": np.array([len(row.ids) for row in rows], dtype=np.int32),
        "ids": ids.astype(np.uint16 if vocab_size <= 1 << 16 else np.int32),
        "log_tail": np.concatenate([row.log_tail for row in rows]).astype(np.float16),
    }
    if kind == "fp16":
        return {**arrays, "logprobs": values.astype(np.float16)}
    high, low = values.max(1).astype(np.float16), values.min(1).astype(np.float16)
    step = _step(high, low)
    levels = np.rint((high.astype(np.float32)[:, None] - values) / step[:, None])
    return {**arrays, "levels": np.clip(levels, 0, 255).astype(np.uint8), "high": high, "low": low}


def unpack(arrays: dict[str, np.ndarray]) -> list[TopK]:
    """The answers that `pack` packed."""
    if "levels" in arrays:
        step = _step(arrays["high"], arrays["low"])
        values = arrays["high"].astype(np.float32)[:, None] - arrays["levels"] * step[:, None]
    else:
        values = arrays["logprobs"].astype(np.float32)
    cuts = np.cumsum(arrays["lengths"])[:-1]
    parts = zip(
        np.split(arrays["ids"].astype(np.int64), cuts),
        np.split(values, cuts),
        np.split(arrays["log_tail"].astype(np.float32), cuts),
        strict=True,
    )
    return [TopK(*part) for part in parts]


def _step(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    span = high.astype(np.float32) - low.astype(np.float32)
    return np.where(span > 0, span / 255, 1.0).astype(np.float32)


def kl_error(exact: TopK, stored: TopK, tail_plogp: np.ndarray, vocab_size: int) -> float:
    """KL(exact || stored), in nats a token, with the stored tail spread evenly over the tokens that are not listed.

    Args:
        tail_plogp: (t,), the sum of p log p over those tokens, of the exact distribution.
    """
    p, log_q = np.exp(exact.logprobs.astype(np.float64)), stored.logprobs.astype(np.float64)
    log_tail = stored.log_tail.astype(np.float64)
    total = np.logaddexp(np.logaddexp.reduce(log_q, axis=1), log_tail)  # after rounding, the sum is not one
    listed = (p * (exact.logprobs - log_q + total[:, None])).sum(1)
    others = max(vocab_size - exact.ids.shape[1], 1)
    rest = tail_plogp - np.exp(exact.log_tail.astype(np.float64)) * (log_tail - total - np.log(others))
    return float((listed + rest).mean())


def rounding_error(exact: TopK, stored: TopK) -> float:
    """KL(exact || stored) in nats a token over k + 1 outcomes, the listed tokens and any other.

    It is the cost of rounding alone, which is all that a loss on those outcomes sees.
    """
    p = np.concatenate([exact.logprobs, exact.log_tail[:, None]], axis=1).astype(np.float64)
    q = np.concatenate([stored.logprobs, stored.log_tail[:, None]], axis=1).astype(np.float64)
    p, q = (part - np.logaddexp.reduce(part, axis=1, keepdims=True) for part in (p, q))
    return float((np.exp(p) * (p - q)).sum(1).mean())
