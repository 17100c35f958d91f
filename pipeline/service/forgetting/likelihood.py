"""Whether weights still know a text: its likelihood against that of texts that were never seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scipy.stats import mannwhitneyu

from moltlm.data.rows import fingerprint_rows
from moltlm.data.state import BASE, State
from moltlm.data.state import of as state_of
from moltlm.data.types import Exchange
from moltlm.pipeline.run import Run

MOST = 64
"""At most so many of the forgotten exchanges are scored."""
LEAST = 5
"""With fewer on a side, a rank says nothing."""


@dataclass(frozen=True)
class Standing:
    """How a removed text stands among texts never seen, by the gain of log-likelihood over the base.

    Attributes:
        gain, gain_unseen: means, in nats a token.
        auc: probability that a removed text gains more than one never seen: near 0.5 where the weights do not tell
            them apart, 1 where all removed ones gain more.
        p: that of the two-sided rank test (Mann and Whitney 1947).
        n, n_unseen: exchanges.
    """

    gain: float
    gain_unseen: float
    auc: float
    p: float
    n: int
    n_unseen: int

    def sentence(self, name: str) -> str:
        """The finding for a reader."""
        if min(self.n, self.n_unseen) < LEAST:
            return f"{name}: {self.n} removed and {self.n_unseen} unseen exchanges are too few to compare by rank"
        verdict = "stand out" if self.p < 0.05 and self.auc > 0.5 else "do not stand out"
        return (
            f"{name}: the removed texts {verdict} among those never seen (AUC {self.auc:.2f}, p {self.p:.2g}, "
            f"n {self.n}, {self.n_unseen}); gain over the base {self.gain:+.3f} against {self.gain_unseen:+.3f} nats "
            "a token"
        )


def measure(
    run: Run, removed: list[Exchange], unseen: list[Exchange], adapters: dict[str, Path]
) -> dict[str, Standing]:
    """Compare the texts in the weights of each adapter, by name.

    Args:
        unseen: exchanges that none of the adapters was trained on.
    """
    distinct = list({fingerprint_rows([item]): item for item in removed}.values())[:MOST]
    rows = [*distinct, *unseen]
    plain = _per_token(run, BASE, rows)
    result = {}
    for name, folder in adapters.items():
        run.base.load(name, folder)
        gains = [after - before for after, before in zip(_per_token(run, state_of(name), rows), plain, strict=True)]
        result[name] = _compare(gains[: len(distinct)], gains[len(distinct) :])
    return result


def _per_token(run: Run, state: State, rows: list[Exchange]) -> list[float]:
    with run.base.state(state):
        prompts, answers = [item.prompt for item in rows], [item.answer for item in rows]
        return [score.per_token for score in run.base.score(prompts, answers, run.config.model.eval_batch_size)]


def _compare(removed: list[float], unseen: list[float]) -> Standing:
    if not removed or not unseen:
        return Standing(float("nan"), float("nan"), float("nan"), float("nan"), len(removed), len(unseen))
    test = mannwhitneyu(removed, unseen, alternative="two-sided")
    auc = float(test.statistic) / (len(removed) * len(unseen))
    means = [sum(values) / len(values) for values in (removed, unseen)]
    return Standing(means[0], means[1], auc, float(test.pvalue), len(removed), len(unseen))
