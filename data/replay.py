"""The replay buffer: the exchanges that best preserve the personality, chosen under one token budget.

It can be updated with new exchanges without those that it left out: each exchange in it stands for those it covers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file, save_file

from moltlm.data import selectors, topk, turns
from moltlm.data.config import ReplayConfig
from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_json, sha256_file, write_json
from moltlm.data.rows import Row, read_rows, write_rows
from moltlm.data.topk import TopK
from moltlm.data.types import Exchange

EXCHANGES, ARRAYS, MANIFEST = "exchanges.jsonl", "arrays.safetensors", "manifest.json"


@dataclass(frozen=True)
class Candidate(Row):
    """An exchange that could be replayed.

    `importance` is that of `adapters.importance`, `arrived` the number of exchanges that were offered before it, and
    `mass` the number of exchanges that it stands for.
    """

    exchange: Exchange
    importance: float
    tokens: int
    arrived: int = 0
    mass: float = 1.0

    @property
    def id(self) -> str:
        return fingerprint([self.exchange.prompt, self.exchange.answer])

    @classmethod
    def from_row(cls, row: dict[str, Any], place: str = "row") -> Self:
        candidate = super().from_row(row, place)
        return replace(candidate, exchange=Exchange.from_row(row["exchange"], place))


@dataclass(frozen=True)
class Buffer:
    """The chosen exchanges with their embeddings (n, d) in float16.

    `offered` counts all exchanges that were ever offered, `mean` (d,) is the mean of their embeddings, and
    `distributions` are by id.
    """

    config: ReplayConfig
    seed: int
    items: list[Candidate]
    embeddings: np.ndarray
    offered: int
    mean: np.ndarray
    distributions: dict[str, TopK] = field(default_factory=dict)

    @property
    def exchanges(self) -> list[Exchange]:
        return [item.exchange for item in self.items]

    @property
    def stored(self) -> list[TopK]:
        """The distribution over each exchange's answer; an empty list if the buffer stores none."""
        return [self.distributions[item.id] for item in self.items] if self.distributions else []

    @property
    def tokens(self) -> int:
        return sum(item.tokens for item in self.items)


def build(candidates: list[Candidate], embeddings: np.ndarray, config: ReplayConfig, seed: int) -> Buffer:
    """Choose the best exchanges under `budget_tokens`.

    Args:
        embeddings: (n, d), of unit length.

    Raises:
        BadInput: if no exchange fits.
    """
    width = embeddings.shape[1]
    empty = Buffer(config, seed, [], np.zeros((0, width), np.float16), 0, np.zeros(width))
    return update(empty, candidates, embeddings)


def update(buffer: Buffer, candidates: list[Candidate], embeddings: np.ndarray) -> Buffer:
    """Choose the best exchanges from those in the buffer and the new ones. Equal exchanges are merged into one with the
    mass of all. Arguments and errors are those of `build`."""
    config, width = buffer.config, buffer.embeddings.shape[1]
    if embeddings.shape != (len(candidates), width):
        raise ValueError(f"embeddings of shape {embeddings.shape} for {len(candidates)} candidates of width {width}")
    arriving = [replace(item, arrived=buffer.offered + place) for place, item in enumerate(candidates)]
    items, rows = _merged(
        [*buffer.items, *arriving], np.concatenate([buffer.embeddings, embeddings.astype(np.float16)])
    )
    offered = buffer.offered + len(candidates)
    mean = (buffer.mean * buffer.offered + embeddings.sum(0, dtype=np.float64)) / offered if offered else buffer.mean
    pool = _pool(items, rows, config, buffer.seed)
    selected = selectors.choose(
        pool,
        config.select,
        config.budget_tokens,
        buffer.seed,
        config.importance_weight,
        config.stratify,
        mean,
    )
    if not len(selected):
        smallest = min((item.tokens for item in items), default=0)
        raise BadInput(
            f"No exchange fits a replay budget of {config.budget_tokens} tokens.",
            f"Set replay.budget_tokens={max(smallest, 1000)} or more.",
        )
    places, _ = selectors.assign(pool.embeddings, pool.embeddings[selected])
    places[selected] = np.arange(len(selected))
    mass = np.bincount(places, weights=pool.mass, minlength=len(selected))
    chosen = [replace(items[index], mass=float(share)) for index, share in zip(selected, mass, strict=True)]
    chosen_ids = {item.id for item in chosen}
    distributions = {name: row for name, row in buffer.distributions.items() if name in chosen_ids}
    return Buffer(config, buffer.seed, chosen, rows[selected], offered, mean, distributions)


def only(buffer: Buffer, exchanges: list[Exchange]) -> Buffer:
    """The buffer with these of its exchanges."""
    standing = [place for place, item in enumerate(buffer.items) if item.exchange in exchanges]
    items = [buffer.items[place] for place in standing]
    distributions = {item.id: buffer.distributions[item.id] for item in items if item.id in buffer.distributions}
    return replace(buffer, items=items, embeddings=buffer.embeddings[standing], distributions=distributions)


def trim(exchange: Exchange, count: Any, limit: int) -> Exchange | None:
    """An exchange without its oldest turns, where it has more than `limit` tokens; None if it has more all the same.

    Args:
        count: returns the number of tokens of an exchange.
    """
    prompt = turns.fitted(exchange.prompt, lambda shorter: count(replace(exchange, prompt=shorter)), limit)
    shorter = replace(exchange, prompt=prompt)
    return shorter if count(shorter) <= limit else None


def with_distributions(buffer: Buffer, rows: dict[str, TopK]) -> Buffer:
    """The buffer with these distributions, by id, in addition to its own."""
    return replace(buffer, distributions={**buffer.distributions, **rows})


def save(buffer: Buffer, folder: Path, vocab_size: int) -> dict[str, Any]:
    """Write the buffer, with the manifest last. Returns the bytes of an exchange by text, embedding and
    distribution."""
    write_rows(folder / EXCHANGES, buffer.items)
    arrays = {"embeddings": buffer.embeddings, "mean": buffer.mean.astype(np.float64)}
    packed = {}
    if buffer.distributions:
        rows = [buffer.distributions[item.id] for item in buffer.items]
        packed = topk.pack(rows, buffer.config.distribution, vocab_size)
    save_file({**arrays, **{f"top.{name}": value for name, value in packed.items()}}, folder / ARRAYS)
    count = len(buffer.items)
    size = {
        "text": round((folder / EXCHANGES).stat().st_size / count),
        "embedding": round(buffer.embeddings.nbytes / count),
        "distribution": round(sum(value.nbytes for value in packed.values()) / count),
    }
    manifest = {
        "config": buffer.config.model_dump(),
        "seed": buffer.seed,
        "offered": buffer.offered,
        "exchanges": count,
        "tokens": buffer.tokens,
        "bytes_per_exchange": size,
        "sha256": {name: sha256_file(folder / name) for name in (EXCHANGES, ARRAYS)},
    }
    write_json(folder / MANIFEST, manifest)
    return size


def load(folder: Path) -> Buffer:
    """Read a buffer. Raises BadInput if a file is missing or does not match its hash in the manifest."""
    manifest = read_json(folder / MANIFEST)
    for name, digest in manifest["sha256"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise BadInput(
                f"{folder / name} does not match its hash in {MANIFEST}: it was changed or lost.",
                f"Remove the folder and build it again: rm -r {folder}; molt replay build CONFIG",
            )
    items = read_rows(folder / EXCHANGES, Candidate)
    arrays = load_file(folder / ARRAYS)
    packed = {name.removeprefix("top."): value for name, value in arrays.items() if name.startswith("top.")}
    rows = topk.unpack(packed) if packed else []
    return Buffer(
        ReplayConfig.model_validate(manifest["config"]),
        manifest["seed"],
        items,
        arrays["embeddings"],
        manifest["offered"],
        arrays["mean"],
        {item.id: row for item, row in zip(items, rows, strict=True)} if packed else {},
    )


def _merged(items: list[Candidate], rows: np.ndarray) -> tuple[list[Candidate], np.ndarray]:
    """Merge equal exchanges into one with the mass of all, and the arrival and importance of the last."""
    position: dict[str, int] = {}
    distinct: list[Candidate] = []
    places = []
    for place, item in enumerate(items):
        if item.id in position:
            earlier = distinct[position[item.id]]
            is_pair = bool(earlier.exchange.rejected) and not item.exchange.rejected
            exchange = earlier.exchange if is_pair else item.exchange
            distinct[position[item.id]] = replace(item, exchange=exchange, mass=earlier.mass + item.mass)
        else:
            position[item.id] = len(distinct)
            distinct.append(item)
            places.append(place)
    return distinct, rows[places]


def _pool(items: list[Candidate], rows: np.ndarray, config: ReplayConfig, seed: int) -> selectors.Pool:
    names = [_stratum(item.exchange, config.strata) for item in items]
    return selectors.Pool(
        embeddings=rows.astype(np.float32),
        tokens=np.array([item.tokens for item in items], dtype=int),
        importance=np.array([item.importance for item in items], dtype=float),
        groups=np.unique(names, return_inverse=True)[1].ravel() if names else np.zeros(0, int),
        mass=np.array([item.mass for item in items], dtype=float),
        arrived=np.array([item.arrived for item in items], dtype=int),
        key=np.array([_key(item.id, seed) for item in items], dtype=float),
    )


def _stratum(exchange: Exchange, strata: str) -> str:
    return {"topic": exchange.topic, "trait": exchange.trait}.get(strata, f"{exchange.topic}/{exchange.trait}")


def _key(identity: str, seed: int) -> float:
    """A number in [0, 1) that depends on the exchange and the seed alone, so that a reservoir can be updated."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{identity}".encode(), digest_size=6).digest(), "big") / 2**48
