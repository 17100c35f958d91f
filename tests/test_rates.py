"""What is timed before a job leaves the model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from moltlm.adapters import base, rates, serve
from moltlm.adapters.config import LoraSettings, ModelConfig
from moltlm.data.persona import user
from moltlm.pipeline import config as configs
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Run
from moltlm.pipeline.setup import forecast
from moltlm.pipeline.setup.parts import parts


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_step_in_a_new_adapter_leaves_the_base_as_it_was(tiny: Path, precision: Any) -> None:
    served = serve.Served(base.load(ModelConfig(id=str(tiny), precision=precision, compute_dtype="float32")))
    rows = served.encode([user("a b c")], ["d e f"])
    before, plain = served.completion_logits(rows)[0].detach(), served.model
    names = list(plain.state_dict())
    weights = {name: value.clone() for name, value in plain.state_dict().items()}
    with rates.new_adapter(served, LoraSettings(r=4)) as new:
        assert new and isinstance(served.model, PeftModel)
        assert torch.allclose(served.completion_logits(rows)[0], before, atol=1e-5)
        rates.step(served, rows)
    assert served.model is plain and list(plain.state_dict()) == names
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    assert not any(parameter.requires_grad for parameter in plain.parameters())
    assert torch.equal(served.completion_logits(rows)[0], before)
    assert served.adapters == []


def test_loaded_adapters_are_left_alone(tiny: Path) -> None:
    served = serve.Served(base.load(ModelConfig(id=str(tiny), precision="fp32")))
    with rates.new_adapter(served, LoraSettings(r=4)):
        loaded = served.model
        with rates.new_adapter(served, LoraSettings(r=4)) as new:
            assert not new and served.model is loaded
        assert served.model is loaded


def test_every_part_of_a_job_takes_time_and_more_of_it_at_half_the_speed(tiny_project: Path) -> None:
    run = Run(configs.load(str(tiny_project / "project.yaml")), Console(True))
    speed = forecast.measure(run)
    every = parts(run, forecast.counter(run))
    assert {"pairs", "personality", "evidence"} <= {part.name for part in every}
    slow = forecast.Speed(*(2 * value for value in vars(speed).values()))
    for part in every:
        assert 0 < speed.seconds(part.work) < slow.seconds(part.work)
