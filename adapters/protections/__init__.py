"""Protections: methods that keep what a model can do while it learns something else. All of them are in `PROTECTIONS`;
every training stage uses those that its settings turn on."""

from __future__ import annotations

from moltlm.adapters.config import ProtectConfig
from moltlm.adapters.protections.agem import AGem
from moltlm.adapters.protections.anchor import Features, KlOnProse, KlToReference, LiveDistillation
from moltlm.adapters.protections.average import RunningAverage
from moltlm.adapters.protections.base import ActiveProtections, Context, Material, Protection, Stage
from moltlm.adapters.protections.corda import Corda
from moltlm.adapters.protections.drift import StopOnDrift
from moltlm.adapters.protections.elastic import Ewc, L2ToStart
from moltlm.adapters.protections.interpolation import Interpolation
from moltlm.adapters.protections.orthogonal import OrthogonalLora
from moltlm.adapters.protections.osf import Osf
from moltlm.adapters.protections.stored import StoredDistillation
from moltlm.adapters.protections.strength import Strength

__all__ = ["PROTECTIONS", "ActiveProtections", "Context", "Material", "Protection", "active"]

# In this order at each moment: first what moves where the adapter begins, last what replaces the weights at the end.
PROTECTIONS: dict[str, type[Protection]] = {
    "osf": Osf,
    "corda": Corda,
    "kl": KlToReference,
    "kl on prose": KlOnProse,
    "distillation": LiveDistillation,
    "features": Features,
    "stored distillation": StoredDistillation,
    "ewc": Ewc,
    "l2": L2ToStart,
    "orthogonal": OrthogonalLora,
    "agem": AGem,
    "stop on drift": StopOnDrift,
    "average": RunningAverage,
    "interpolation": Interpolation,
    "strength": Strength,
}


def active(settings: ProtectConfig, stage: Stage) -> ActiveProtections:
    """The protections that these settings turn on in a stage, not yet started."""
    configured = {name: kind.from_settings(settings) for name, kind in PROTECTIONS.items() if stage in kind.stages}
    return ActiveProtections({name: member for name, member in configured.items() if member is not None})
