"""What makes an artifact the same one: for every stage, with nothing made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, create_model

import moltlm
from moltlm.data import replay as buffers
from moltlm.data.io import read_jsonl, write_json, write_jsonl, write_text
from moltlm.data.state import BASE, PERSONALITY, Adapter, State
from moltlm.data.types import Exchange
from moltlm.evals.config import HypothesisConfig
from moltlm.pipeline import config as configs
from moltlm.pipeline import explain, fields, identity
from moltlm.pipeline.config import Config, vary
from moltlm.pipeline.console import Console
from moltlm.pipeline.run import Artifact, Make, Run
from moltlm.pipeline.service import retrain, screening
from moltlm.pipeline.service.bundles import Bundle
from moltlm.pipeline.service.moving import carry, proof
from moltlm.pipeline.service.registry import Registry
from moltlm.pipeline.stages import direction, first_answers, joint, measures, replay, routing, tasks
from moltlm.pipeline.studies import explore, grid, knowledge, sequence

HYPOTHESIS: dict[str, Any] = {
    "id": "H1",
    "claim": "one way keeps more than another",
    "better": "lora",
    "than": ["full"],
    "arms": {
        "lora": {"method": "sft", "learning_rate": 1e-3},
        "full": {"method": "sft", "learning_rate": 1e-4, "kl_weight": 0.5},
    },
    "seeds": [1, 2],
    "steps": 3,
    "checkpoints": [2, 3],
    "gain_levels": [0.001],
}


@dataclass
class Recorded:
    """The artifacts that a run asked for: key by stage, subject and label; and the inputs of each key."""

    keys: dict[str, str] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)


class RecordingRun(Run):
    """A run that makes nothing: each artifact is an empty one with the key of its inputs."""

    recorded: Recorded

    def do(self, stage: str, inputs: dict[str, Any], make: Make, label: str = "", subject: str = "") -> Artifact:
        inputs = identity.present(inputs)
        key = identity.key_of(stage, inputs, subject)
        name = f"{stage}-{subject}" if subject else stage
        repeat = self.config.personality.repeat
        self.recorded.keys[f"{name}: {label}, {self.config.router.method}, {repeat}"] = key
        self.recorded.stages[key] = stage
        self.recorded.inputs[key] = inputs
        folder = self.folder / name / key
        if stage == "job":  # what is explored is what is stored
            write_json(folder / "inputs.json", inputs)
            write_json(folder / "artifact.json", {"seconds": 1.0})
        if stage == "replay":
            write_json(folder / buffers.MANIFEST, {})
        return Artifact(name, folder, key, 1.0, {"pairs": 10_000})


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Any]:
    """A configuration in which every stage has something to do."""
    rows = [{"prompt": f"list files {i}", "answer": "ls"} for i in range(40)]
    (tmp_path / "own").mkdir()
    write_jsonl(tmp_path / "own" / "train.jsonl", rows[:20])
    write_jsonl(tmp_path / "own" / "test.jsonl", rows[20:])
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]
    for name in ("chats", "instructions"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"messages": turns}])
    duel = {"question": "q", "first": "a", "second": "b", "preferred": 1}
    write_jsonl(tmp_path / "labels.jsonl", [duel])
    (tmp_path / "h1.yaml").write_text(yaml.safe_dump(HYPOTHESIS))
    return {
        "run": {"folder": str(tmp_path / "run")},
        "persona": {"spec": str(_persona(tmp_path / "bob", "Bob"))},
        "conversations": {"paths": [str(tmp_path / "chats.jsonl")]},
        "replay": {"instructions": str(tmp_path / "instructions.jsonl")},
        "tasks": {
            "shell": {"kind": "shell", "control": True, "train": 16, "test": 8},
            "own": {"kind": "jsonl", "path": str(tmp_path / "own"), "train": 8, "test": 8, "on_policy": "grpo"},
        },
        "judge": {"kind": "endpoint", "model": "m", "labels": str(tmp_path / "labels.jsonl")},
        "profile": {"big_five": _rows(tmp_path / "mpi.jsonl", {"text": "Talk", "trait": "E", "key": 1})},
        "agent": {"items": 2},
        "gate": {"noise_runs": 2},
        "knowledge": {"facts": [4], "ranks": [2], "seeds": [1]},
        "hypotheses": [str(tmp_path / "h1.yaml")],
        "introspection": {"reflections": 2, "dialogues": 2},
        "retrain": {"conversations": str(tmp_path / "chats.jsonl")},
    }


def record(config: Config) -> Recorded:
    """Ask for an artifact of every stage, in an empty folder."""
    shutil.rmtree(config.run.folder, ignore_errors=True)
    run = RecordingRun(config, Console())
    run.recorded = Recorded()
    try:
        above = [PERSONALITY.above(*adapters) for adapters in ([Adapter("shell")], [Adapter("shell", control=True)])]
        for state in (BASE, PERSONALITY, *above):
            for measure in (measures.capability, measures.persona_of, measures.drift, measures.pressure):
                measure(run, state)
            for measure in (measures.profile, measures.agent, measures.judge):
                measure(run, state)
            measures.task_score(run, "shell", state)
        first_answers.first_answers(run)
        measures.judge_of_labels(run)
        measures.noise(run)
        tasks.trained(run, Adapter("own"))
        replay.updated_buffer(run, [config.run.folder.with_name("chats.jsonl")])
        adapters = (Adapter("shell"), Adapter("own"))
        measures.persona_of(run, State(PERSONALITY.adapters, adapters))
        with run.varied(vary(config, {"router.method": "token"}, "test")):
            routing.router(run, adapters)
        for name in config.hypotheses:
            grid.verdict(run, name)
        explore.explore(run)
        knowledge.answer(run)
        sequence.measure(run, "sequence")
        joint.joint(run)
        new = [Exchange([{"role": "user", "content": "hi"}], "Hello.")]
        bundle = Bundle({"personality": "personality-1"})
        cycle = retrain.CycleJob(Registry(config.registry.folder), bundle, "", 1, new, {})
        run.do("retrain", retrain.inputs_of(run, cycle), lambda folder: {})
        carried = carry.inputs_of(run, "personality-1", carry.Source([], [], []), distils=True)
        run.do("carried", carried, lambda folder: {})
        run.do("move", proof.inputs_of(run, run, "personality-1", 1), lambda folder: {})
        run.do("screen", screening.inputs_of(run, "personality-1", new), lambda folder: {})
        direction.direction(run)
    finally:
        run.close()
    return run.recorded


def extended(kind: type[BaseModel]) -> Any:
    """The class of a section with one more setting, which has a default; its nested sections likewise."""
    added: dict[str, Any] = {"added_setting": (int, 7)}
    for name, item in kind.model_fields.items():
        annotation, arguments = item.annotation, get_args(item.annotation)
        if isinstance(annotation, type) and not arguments and issubclass(annotation, BaseModel):
            nested = extended(annotation)
            added[name] = (nested, nested())
        elif get_origin(annotation) is dict and issubclass(
            arguments[1] if isinstance(arguments[1], type) else int, BaseModel
        ):
            added[name] = (GenericAlias(dict, (str, extended(arguments[1]))), ... if item.is_required() else {})
    return create_model(kind.__name__, __base__=kind, **added)


def test_a_new_setting_with_a_default_changes_no_key(raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = record(Config.model_validate(raw))
    assert set(before.stages.values()) == set(identity.STAGES)
    monkeypatch.setattr(configs, "HypothesisConfig", extended(HypothesisConfig))
    after = record(extended(Config).model_validate(raw))
    assert after.keys == before.keys


def test_a_setting_written_out_at_its_default_changes_no_key(raw: dict[str, Any]) -> None:
    before = record(Config.model_validate(raw))
    full = Config.model_validate(raw).model_dump(mode="json")
    assert record(Config.model_validate(full)).keys == before.keys


def test_introspection_that_is_off_changes_no_key(raw: dict[str, Any]) -> None:
    off = {key: value for key, value in raw.items() if key != "introspection"}
    before = record(Config.model_validate(off))
    assert not any(stage.startswith("introspection") for stage in before.stages.values())
    others = {"turns": 4, "min_voice": 0.9, "steps": 7, "prompts": ["Who are you?"]}
    assert record(Config.model_validate({**off, "introspection": others})).keys == before.keys
    on = record(Config.model_validate(raw))
    for stage in ("pairs", "personality"):
        keys = {key for key, name in before.stages.items() if name == stage}
        assert keys == {key for key, name in on.stages.items() if name == stage}


def test_another_version_of_the_package_changes_no_key(raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = record(Config.model_validate(raw))
    monkeypatch.setattr(moltlm, "__version__", "99.0")
    assert record(Config.model_validate(raw)).keys == before.keys


@pytest.mark.parametrize("stage", identity.STAGES)
def test_another_version_of_a_stage_changes_its_key_and_those_downstream(
    raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    config = Config.model_validate(raw)
    before = record(config)
    monkeypatch.setitem(identity.STAGES, stage, identity.STAGES[stage] + 1)
    after = record(config)
    for name, key in before.keys.items():
        uses = any(before.stages[one] == stage for one in _upstream(before, key))
        assert (after.keys[name] != key) == uses, name


def _upstream(recorded: Recorded, key: str) -> set[str]:
    """The key itself and those that its inputs name, directly or not."""
    text = json.dumps(recorded.inputs[key])
    direct = {other for other in recorded.keys.values() if other != key and other in text}
    return {key}.union(*(_upstream(recorded, other) for other in direct))


def test_each_setting_changes_the_keys_that_it_is_said_to_change(raw: dict[str, Any], tmp_path: Path) -> None:
    """Where a setting enters a key directly, with the keys of what is upstream left out of account."""
    base = {**raw, "protect": {"scales": [0.5]}}
    before = _own_inputs(record(Config.model_validate(base)))
    wrong = []
    for key, item in fields.settings_of(Config):
        if key in NOT_VARIED:
            continue
        config = Config.model_validate(base)
        value = VALUES[key](tmp_path) if key in VALUES else _another(item.annotation, _value(config, key))
        try:
            after = _own_inputs(record(vary(config, {key.replace("*", _task(key)): value}, "test")))
        except Exception as error:
            wrong.append((key, str(error)))
            continue
        changed = {stage for stage in after.keys() | before.keys() if after.get(stage) != before.get(stage)}
        if changed != set(explain.stages_of(key)):
            wrong.append((key, sorted(changed)))
    assert not wrong, "\n".join(map(str, wrong))


NOT_VARIED = {
    "personality.parameters": "full is for the arms of hypotheses",
    "hypotheses": "the file itself is what counts",
    "tasks.*.passage_words": "only of plain texts",
    "tasks.*.kind": "other kinds need other files",
    "router.method": "decides which of two stages is there",
    "protect.layout": "decides which adapters are below which",
    "gate.refusal_margin": "needs profile.refusals",
    "dpo.distill_weight": "needs distributions that were carried from another base",
    "gate.noise_runs": "decides how many personalities there are",
    "judge.kind": "decides whether there is a judge",
}
VALUES: dict[str, Callable[[Path], Any]] = {
    "model.chat_template": lambda folder: str(_rows(folder / "chat.jinja", {"messages": "all"})),
    "persona.spec": lambda folder: str(_persona(folder / "ann", "Ann")),
    "run.folder": lambda folder: str(folder / "other-run"),
    "run.storage": lambda folder: f"file://{folder / 'storage'}",
    "personality.repeat": lambda folder: 5,
    "persona.train_limit": lambda folder: 2,
    "persona.heldout_limit": lambda folder: 2,
    "conversations.paths": lambda folder: [str(folder / "instructions.jsonl")],
    "replay.instructions": lambda folder: "",
    "protect.average_decay": lambda folder: 0.5,
    "protect.target_modules": lambda folder: ["q_proj"],
    "sequence.orders": lambda folder: [["own", "shell"]],
    "protect.stop_kl": lambda folder: 0.5,
    "personality.stop_kl": lambda folder: 0.5,
    "filters.min_margin": lambda folder: 0.1,
    "tasks.*.path": lambda folder: str(_copy(folder / "own", folder / "other")),
    "tasks.*.prompt": lambda folder: "Say: {prompt}",
    "tasks.*.answer": lambda folder: "It is {answer}",
    "tasks.*.metric": lambda folder: "json",
    "tasks.*.seed": lambda folder: 5,
    "tasks.*.test": lambda folder: 9,
    "tasks.*.test_generated": lambda folder: 4,
    "tasks.*.replay_ratio": lambda folder: 0.5,
    "profile.big_five": lambda folder: _rows(folder / "bfi.jsonl", {"text": "Walk", "trait": "E", "key": 1}),
    "profile.traits": lambda folder: _rows(
        folder / "traits.jsonl", {"question": "q", "behavior": "b", "answer_matching": "Yes"}
    ),
    "profile.refusals": lambda folder: _rows(folder / "xs.jsonl", {"prompt": "p", "label": "safe"}),
    "judge.labels": lambda folder: _rows(
        folder / "more.jsonl", {"question": "q", "first": "a", "second": "b", "preferred": 2}
    ),
    "capability.items": lambda folder: {"arc_easy": 3},
    "sequence.methods": lambda folder: {"unprotected": {}},
    "dpo.loss": lambda folder: "hinge",
    "teacher.kind": lambda folder: "base",
    "registry.folder": lambda folder: str(folder / "registry"),
    "retrain.conversations": lambda folder: str(folder / "instructions.jsonl"),
    "retrain.sources": lambda folder: [str(folder)],
    "retrain.remedies": lambda folder: ["kl"],
    "schedule.metrics_file": lambda folder: str(folder / "molt.prom"),
    "schedule.notify_on": lambda folder: ["failed"],
    "train.report_to": lambda folder: ["tensorboard"],
    "schedule.at": lambda folder: "04:00",
    "model.revision": lambda folder: "main",
    "tasks.*.on_policy": lambda folder: "regenerate",
    "train.prose": lambda folder: str(_rows(folder / "prose.jsonl", {"text": "one two " * 20})),
    "train.gradient_accumulation": lambda folder: 2,
}


def _another(annotation: Any, value: Any) -> Any:
    """Another value of this type, within the usual bounds."""
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        return choices[(choices.index(value) + 1) % len(choices)]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.9 if value else 0.25
    if isinstance(value, list):
        return [*value, "x" if get_args(annotation)[0] is str else 9]
    return f"{value}x"


def _task(key: str) -> str:
    """The task whose setting is varied: the one from files where it has to be."""
    last = key.split(".")[-1]
    files = last in ("path", "prompt", "answer", "generations", "metric", "max_new_tokens") or last.startswith(
        "on_policy"
    )
    return "own" if files else "shell"


def _value(config: Config, key: str) -> Any:
    node: Any = config
    for part in key.replace("*", _task(key)).split("."):
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    return node


def _rows(path: Path, row: dict[str, Any]) -> str:
    write_jsonl(path, [row])
    return str(path)


def _copy(source: Path, target: Path) -> Path:
    write_jsonl(target / "train.jsonl", [{"prompt": f"show files {i}", "answer": "ls"} for i in range(20)])
    write_jsonl(target / "test.jsonl", read_jsonl(source / "test.jsonl"))
    return target


def _persona(folder: Path, name: str) -> Path:
    spec: dict[str, Any] = {"name": name, "summary": name, "system_prompt": f"Be {name}."}
    spec |= {"voice": [], "values": [], "boundaries": [], "traits": [{"id": "calm", "text": "I am calm."}]}
    write_text(folder / "persona.yaml", yaml.safe_dump(spec))
    for split in ("train", "heldout"):
        write_jsonl(folder / f"{split}.jsonl", [{"prompt": f"{split} {i}?", "answer": f"Yes, {i}."} for i in range(4)])
    return folder


def _own_inputs(recorded: Recorded) -> dict[str, set[str]]:
    """The inputs of each stage, with the stage in place of each key."""
    result: dict[str, set[str]] = {}
    for key, inputs in recorded.inputs.items():
        text = json.dumps(inputs, sort_keys=True)
        for other, stage in recorded.stages.items():
            text = text.replace(other, stage)
        result.setdefault(recorded.stages[key], set()).add(text)
    return result
