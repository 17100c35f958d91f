"""A router picks the task adapter for a request from its text. The personality is always active, and a request that is
for no task goes to the personality alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from moltlm.data.errors import BadInput
from moltlm.data.io import read_json, sha256_file, write_json
from moltlm.data.state import Adapter, State
from moltlm.data.types import Divergence, Message, Progress, TokenScore, silent

Embed = Callable[[list[str]], np.ndarray]
if TYPE_CHECKING:
    from moltlm.adapters.serve import Served

NO_TASK = ""
"""The name that stands for no task: the personality alone."""
ARRAYS, MANIFEST = "router.safetensors", "router.json"
FOLDS = 5


@dataclass(frozen=True)
class Router:
    """Linear scores: `weights` (k, d) and `bias` (k,), by `names`. centroid: cosines to each name's mean; learned:
    logistic regression. A request goes to the best name, unless its score is below that name's threshold (k,)."""

    names: list[str]
    method: str
    weights: np.ndarray
    bias: np.ndarray
    thresholds: np.ndarray

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """(n, k) from embeddings (n, d) of unit length: cosines, or probabilities."""
        scores = rows @ self.weights.T + self.bias
        if self.method == "centroid":
            return scores
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)

    def route(self, rows: np.ndarray) -> list[str]:
        """A task's name for each embedding, or NO_TASK."""
        scores = self.scores(rows)
        best = scores.argmax(1)
        sure = scores[np.arange(len(rows)), best] >= self.thresholds[best]
        return [self.names[place] if ok else NO_TASK for place, ok in zip(best, sure, strict=True)]


@dataclass(frozen=True)
class Routing:
    """How a router performs on texts whose owners are known.

    Attributes:
        intruded: share of ordinary chat that is routed to a task.
        missed: share of the tasks' texts that are routed to no task.
        counts: number of texts by owner and by route.
    """

    n: int
    accuracy: float
    intruded: float
    missed: float
    counts: dict[str, dict[str, int]]


def fit(
    embed: Embed,
    examples: dict[str, list[str]],
    method: str = "learned",
    quantile: float = 0.02,
    seed: int = 0,
) -> Router:
    """Fit a router on texts by owner; ordinary chat, whose owner is NO_TASK, is a class like any other.

    Args:
        quantile: each owner's threshold is this quantile of its texts' cross-validated scores, so about this share of
            them is routed to no task.

    Raises:
        BadInput: there are fewer than two owners, or one has fewer than five texts.
    """
    names = sorted(examples)
    if len(names) < 2 or min(map(len, examples.values())) < FOLDS:
        raise BadInput(
            "A router needs at least two owners with five texts each, ordinary chat among them.",
            "Give it more examples.",
        )
    rows = np.concatenate([embed(examples[name]) for name in names])
    owners = np.repeat(np.arange(len(names)), [len(examples[name]) for name in names])
    held_out = np.empty(len(rows))
    for inside, outside in KFold(FOLDS, shuffle=True, random_state=seed).split(rows):
        part = _fitted(names, method, rows[inside], owners[inside])
        held_out[outside] = part.scores(rows[outside])[np.arange(len(outside)), owners[outside]]
    thresholds = np.array([np.quantile(held_out[owners == place], quantile) for place in range(len(names))])
    whole = _fitted(names, method, rows, owners)
    return Router(names, method, whole.weights, whole.bias, thresholds.astype(np.float32))


def _fitted(names: list[str], method: str, rows: np.ndarray, owners: np.ndarray) -> Router:
    free = np.full(len(names), -np.inf, dtype=np.float32)
    if method == "centroid":
        means = np.stack([rows[owners == place].mean(0) for place in range(len(names))])
        means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return Router(names, method, means.astype(np.float32), np.zeros(len(names), np.float32), free)
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000).fit(rows, owners)
    weights, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(names) == 2:  # one row stands for both: the softmax of (0, z) is the sigmoid of z
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return Router(names, method, weights.astype(np.float32), bias.astype(np.float32), free)


def evaluate(router: Router, embed: Embed, examples: dict[str, list[str]]) -> Routing:
    """Evaluate a router on texts by owner that it was not fitted on."""
    counts_by_owner = {owner: dict(Counter(router.route(embed(texts)))) for owner, texts in examples.items() if texts}
    n = sum(map(len, examples.values()))
    chat = counts_by_owner.get(NO_TASK, {})
    tasks = {owner: counts for owner, counts in counts_by_owner.items() if owner != NO_TASK}
    return Routing(
        n=n,
        accuracy=sum(counts.get(owner, 0) for owner, counts in counts_by_owner.items()) / n,
        intruded=1 - chat.get(NO_TASK, 0) / sum(chat.values()) if chat else 0.0,
        missed=sum(counts.get(NO_TASK, 0) for counts in tasks.values())
        / max(sum(sum(counts.values()) for counts in tasks.values()), 1),
        counts={
            owner or "no task": {name or "no task": k for name, k in counts.items()}
            for owner, counts in counts_by_owner.items()
        },
    )


def save(router: Router, folder: Path) -> None:
    """Write the router's arrays and its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"weights": router.weights, "bias": router.bias, "thresholds": router.thresholds}
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, folder / ARRAYS)
    manifest = {"names": router.names, "method": router.method, "sha256": sha256_file(folder / ARRAYS)}
    write_json(folder / MANIFEST, manifest)


def load(folder: Path) -> Router:
    """The router in this folder.

    Raises:
        BadInput: its arrays have changed since they were written.
    """
    manifest = read_json(folder / MANIFEST)
    if sha256_file(folder / ARRAYS) != manifest["sha256"]:
        raise BadInput(f"{folder / ARRAYS} is not what was written there.", f"Remove {folder} and run again.")
    return Router(names=manifest["names"], method=manifest["method"], **load_file(folder / ARRAYS))


class Routed:
    """A served model in whose routed states each request is answered by one of the routes, or by none.
    Implements `data.types.ChatModel`; any other state is the served model's own."""

    def __init__(self, served: Served, router: Router) -> None:
        self._served, self._router = served, router
        self._routing = False

    @property
    def model(self) -> Any:
        return self._served.model

    @property
    def tokenizer(self) -> Any:
        return self._served.tokenizer

    @contextmanager
    def state(self, state: State) -> Iterator[None]:
        before = self._routing
        self._routing = bool(state.routes)
        try:
            with self._served.state(State(state.adapters)):
                yield
        finally:
            self._routing = before

    def embed(self, texts: list[str]) -> np.ndarray:
        return self._served.embed(texts)

    def generate(
        self,
        prompts: list[list[Message]],
        max_new_tokens: int,
        batch_size: int,
        progress: Progress = silent,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        return self._spread(
            prompts,
            lambda rows: self._served.generate(
                [prompts[i] for i in rows], max_new_tokens, batch_size, progress, temperature, seed
            ),
        )

    def score(
        self, prompts: list[list[Message]], completions: list[str], batch_size: int, progress: Progress = silent
    ) -> list[TokenScore]:
        return self._spread(
            prompts,
            lambda rows: self._served.score(
                [prompts[i] for i in rows], [completions[i] for i in rows], batch_size, progress
            ),
        )

    def score_continuations(
        self, starts: list[str], continuations: list[list[str]], batch_size: int, progress: Progress = silent
    ) -> list[list[float]]:
        """By the adapters that every prompt has: plain texts are not routed."""
        return self._served.score_continuations(starts, continuations, batch_size, progress)

    def score_against(
        self,
        reference: State,
        prompts: list[list[Message]],
        completions: list[str],
        batch_size: int,
        progress: Progress = silent,
    ) -> list[Divergence]:
        return self._spread(
            prompts,
            lambda rows: self._served.score_against(
                reference, [prompts[i] for i in rows], [completions[i] for i in rows], batch_size, progress
            ),
        )

    def _spread(self, prompts: list[list[Message]], call: Callable[[list[int]], Sequence[Any]]) -> list[Any]:
        """Call once for each route with the indices of its prompts, and return the results in the prompts' order."""
        if not self._routing or not prompts:
            return list(call(list(range(len(prompts)))))
        first = self._served.current
        routes = self._router.route(self._served.embed([prompt[-1]["content"] for prompt in prompts]))
        results: dict[int, Any] = {}
        for name in dict.fromkeys(routes):
            rows = [place for place, route in enumerate(routes) if route == name]
            with self._served.state(first.above(Adapter(name)) if name else first):
                results.update(zip(rows, call(rows), strict=True))
        return [results[place] for place in range(len(prompts))]
