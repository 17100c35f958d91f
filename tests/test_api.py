"""The public Python interface, on a tiny real model."""

from __future__ import annotations

from pathlib import Path

import pytest

import moltlm
from moltlm.data.errors import BadInput
from moltlm.pipeline.reporting import collect


def test_a_persona_is_trained_gated_and_talked_to_from_python(tiny_project: Path, tmp_path: Path) -> None:
    config = tiny_project / "project.yaml"
    settings = [f"run.folder={tmp_path / 'run'}", f"registry.folder={tmp_path / 'registry'}", "sequence.methods={}"]
    with moltlm.Project(config, *settings) as project:
        assert project.persona.spec.name == "Cláudio"
        assert {pair.id for pair in project.pairs()}.isdisjoint(pair.id for pair in project.pairs("heldout"))
        adapter = project.train_personality()
        assert (adapter.folder / "adapter_model.safetensors").is_file()
        assert project.train_personality() == adapter
        verdicts = project.gate()
        assert list(verdicts) == ["personality", "reminders", "shell"]
        answers = [project.answer("hello", state, 8) for state in ("base", "personality+reminders")]
        assert project.answer([{"role": "user", "content": "hello"}], "base", 8) == answers[0]
        assert project.report().is_file() and collect.collect(project.run).gates.keys() == verdicts.keys()
        with pytest.raises(BadInput, match="no task dance"):
            project.train_task("dance")
    with moltlm.Project(config, *settings) as project:  # closed, so it can be opened again
        assert project.train_personality() == adapter
