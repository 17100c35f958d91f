"""What the studies write: verdict.json of a hypothesis, and explored.json."""

from __future__ import annotations

from dataclasses import dataclass, field

from moltlm.evals.config import Arm
from moltlm.evals.early import Detection
from moltlm.evals.hypotheses import TuningResult, Verdict
from moltlm.evals.threshold import Threshold


@dataclass(frozen=True)
class TuningRow(TuningResult):
    """A learning rate and KL weight that were tried for an arm, with the result on the tuning seeds.

    Attributes:
        preferred: the rule prefers it; where the hypothesis fixes a rate, another one may have been confirmed.
    """

    learning_rate: float
    kl_weight: float
    preferred: bool


@dataclass(frozen=True)
class GridVerdict(Verdict):
    """The verdict on a hypothesis, and the grid that it rests on.

    Attributes:
        axis: what gain is: "persona" (score 0..1) or "likelihood" (nats a token).
        precision: of the base that all arms share.
        arms: the arms as they were trained, with everything that was open in the hypothesis chosen.
        tuning: by arm, all that was tried to choose it; none for arms where nothing was open.
        by_authorship: the verdict with the persona gain by authorship in place of style (`studies.authorship`), for
            information; None where gain is measured by likelihood.
    """

    axis: str
    precision: str
    arms: dict[str, Arm] = field(default_factory=dict)
    tuning: dict[str, list[TuningRow]] = field(default_factory=dict)
    by_authorship: Verdict | None = None


@dataclass(frozen=True)
class Explored:
    """What all trainings of the grids show together: can forgetting be predicted early, and is there a threshold of KL
    to the base; None where there are too few trainings to look for one."""

    early: Detection
    threshold: Threshold | None
