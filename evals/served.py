"""General ability of a model behind a server, on the items that are measured in process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from moltlm.data.io import batches
from moltlm.data.served import TokenLogprob
from moltlm.data.types import ChatModel, Progress, silent
from moltlm.evals import harness
from moltlm.evals.records import ItemRecord

Logprobs = Callable[[list[list[int]]], Sequence[Sequence[TokenLogprob]]]
"""Returns, for each text as tokens, all of them but the first."""


class ServedLM(harness.SharedContextLM):
    """The harness's model, whose likelihoods a server gives. Its own weights are not asked."""

    logprobs: Logprobs

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        scores: list[tuple[float, bool]] = []
        for group in batches(requests, int(self.batch_size)):
            rows = [(context[-(self.max_length + 1 - len(end)) :], end) for _, context, end in group]
            for (_, end), row in zip(rows, self.logprobs([start + end for start, end in rows]), strict=True):
                last = row[-len(end) :]
                scores.append((sum(token.logprob for token in last), all(token.is_top for token in last)))
            self.progress(len(scores), len(requests), "")
        return scores


def evaluate(
    model: ChatModel,
    items: dict[str, int],
    batch_size: int,
    seed: int,
    logprobs: Logprobs,
    progress: Progress = silent,
) -> list[ItemRecord]:
    """See `harness.evaluate`.

    Args:
        model: whose tokenizer the server's model has.
        logprobs: of the server.
    """

    def engine(**settings: Any) -> ServedLM:
        lm = ServedLM(**settings)
        lm.logprobs = logprobs
        return lm

    return harness.evaluate(model, items, batch_size, seed, progress, engine=engine)
