"""What a setting is: its description, type, default and value, and the stages that depend on it. Imports no torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from moltlm.data.errors import BadInput
from moltlm.evals.config import HypothesisConfig
from moltlm.pipeline.config import OF_HYPOTHESIS, Config
from moltlm.pipeline.fields import choices_of, default_of, known_keys, matches, settings_of, type_text

DATA = ("pairs", "router", "task", "joint", "task-score", "drift")
"""Stages that read the examples of tasks."""
USED_BY: dict[str, tuple[str, ...]] = {
    "run.folder": (),
    "run.storage": (),
    "run.seed": (
        "carried", "pairs", "personality", "introspection-samples", "replay", "router", "gates", "task", "joint",
        "capability", "pressure", "profile", "agent", "drift", "task-score", "retrain",
    ),
    "model": ("pairs", "knowledge-base", "knowledge-job"),
    "model.shape": (),
    "persona": ("pairs",),
    "persona.spec": ("pairs", "judge", "judge-labels"),
    "conversations": ("pairs",),
    "conversations.forgotten": (),  # what it holds counts, where it is about files that are read
    "teacher": ("pairs",),
    "pairs": ("pairs",),
    "filters": ("pairs",),
    "lora": ("personality", "task", "job", "knowledge-job", "joint"),
    "lora.r": ("personality", "task", "job", "joint"),
    "lora.alpha": ("personality", "task", "job", "joint"),
    "train": ("personality", "task", "gates", "job", "knowledge-job", "retrain", "joint"),
    "train.report_to": (),
    "personality": ("personality",),
    "personality.batch_size": ("personality", "retrain"),
    "dpo": ("personality", "retrain"),
    "dpo.beta": ("personality", "job", "retrain"),
    "dpo.nll_weight": ("personality", "job", "retrain"),
    "dpo.kl_batch": ("personality", "job", "retrain"),
    "introspection": ("introspection-samples",),
    "introspection.min_voice": ("introspection",),
    "introspection.min_overlap": ("introspection",),
    "introspection.near_duplicate": ("introspection",),
    "introspection.min_new": ("introspection",),
    "introspection.per_prompt": ("introspection",),
    "introspection.steps": ("introspection-training",),
    "introspection.learning_rate": ("introspection-training",),
    "introspection.pairs_share": ("introspection-training",),
    "replay": ("replay",),
    "replay.top_k": ("carried", "replay"),
    "replay.instructions": ("replay", "task"),
    "protect": ("task", "gates"),
    "router": ("router", "gates"),
    "tasks.*": ("task",),
    "tasks.*.kind": DATA,
    "tasks.*.path": DATA,
    "tasks.*.prompt": DATA,
    "tasks.*.answer": DATA,
    "tasks.*.test": DATA,
    "tasks.*.test_generated": ("task-score",),
    "tasks.*.passage_words": DATA,
    "tasks.*.seed": ("router", "task", "joint", "task-score", "drift"),
    "tasks.*.steps": ("task", "joint"),
    "tasks.*.batch_size": ("task", "joint"),
    "tasks.*.learning_rate": ("task", "joint"),
    "tasks.*.train": ("router", "task", "joint"),
    "tasks.*.metric": ("task", "practice", "task-score"),
    "tasks.*.max_new_tokens": ("task", "practice", "task-score"),
    "tasks.*.on_policy": ("practice",),
    "tasks.*.on_policy_steps": ("practice",),
    "tasks.*.on_policy_rounds": ("practice",),
    "tasks.*.on_policy_learning_rate": ("practice",),
    "tasks.*.generations": ("practice",),
    "tasks.*.control": (),
    "tasks.*.floor": (),
    "capability": ("capability", "retrain"),
    "capability.items": ("pairs", "capability", "retrain"),
    "persona_eval": ("retrain",),
    "persona_eval.max_new_tokens": ("carried", "first-answers", "persona", "profile", "retrain", "self-facts"),
    "persona_eval.neutral": ("drift", "retrain"),
    "pressure": ("pressure",),
    "profile": ("profile", "retrain"),
    "agent": ("agent", "retrain"),
    "judge": ("judge", "judge-labels"),
    "judge.kind": (),
    "judge.api_key_env": (),
    "judge.budget_tokens": (),
    "judge.retries": (),
    "judge.timeout_s": (),
    "judge.concurrency": (),
    "judge.labels": ("judge-labels",),
    "gate": ("move", "retrain"),
    "gate.anchor_margin": ("retrain",),
    "gate.task_margin": ("retrain",),
    "gate.noise_runs": ("noise", "retrain"),
    "sequence": (),
    "hypotheses": (),
    "knowledge": ("knowledge-job",),
    "knowledge.items": ("knowledge-base", "knowledge-job"),
    "knowledge.facts": ("knowledge-job", "knowledge"),
    "knowledge.ranks": ("knowledge-job", "knowledge"),
    "knowledge.seeds": ("knowledge-base", "knowledge-job", "knowledge"),
    "knowledge.random_control": ("knowledge-job", "knowledge"),
    "knowledge.drop": ("knowledge",),
    "registry": (),
    "retrain": ("retrain",),
    "move": ("carried",),
    "move.distill_weight": (),
    "screen": (),
    "schedule": (),
    "served": (),
}  # fmt: skip
"""The stages whose key a setting enters directly, by the longest beginning of its key. Stages downstream follow."""
COMMANDS = {
    "conversations.forgotten": "molt forget",
    "train.report_to": "every training",
    "served": "molt gate --served",
    "run.folder": "every command",
    "run.storage": "every command",
    "model.shape": "molt config check",
    "tasks.*.control": "molt run",
    "tasks.*.floor": "molt report",
    "judge": "molt eval judge",
    "sequence": "molt compare-methods",
    "hypotheses": "molt run",
    "registry": "molt gate, molt retrain, molt registry",
    "screen": "molt retrain, molt blame",
    "schedule": "molt schedule install",
    "move.distill_weight": "molt move",
}
"""The commands that read a setting which enters no key."""


@dataclass(frozen=True)
class Explanation:
    """A setting; `key` has `*` for the name of a task. `value` is that of a configuration, by name where there are
    several, and null for a setting of a hypothesis file; `stages` are those whose key it enters, `command` reads it
    where it enters none."""

    key: str
    description: str
    type: str
    choices: list[Any]
    default: Any
    required: bool
    value: Any
    stages: list[str]
    command: str

    def lines(self) -> list[str]:
        """What a person reads."""
        default = "required" if self.required else f"default {json.dumps(self.default)}"
        where = ", ".join(self.stages) or f"no stage ({self.command})"
        value = "" if self.key.startswith(OF_HYPOTHESIS) else f"  {json.dumps(self.value, ensure_ascii=False)}"
        return [
            f"{self.key}{value}",
            f"  {self.description}",
            f"  {self.type}; {default}; enters the key of: {where}",
        ]


def explain(key: str, config: Config) -> list[Explanation]:
    """The setting of this key, or all settings of a section.

    Args:
        key: dotted, such as `dpo.beta`, `dpo`, `tasks.reminders.steps` or `tasks.*.steps`; for a hypothesis file,
            `hypothesis` or `hypothesis.seeds`.

    Raises:
        BadInput: for an unknown key, naming the nearest ones.
    """
    if f"{key}.".startswith(OF_HYPOTHESIS):
        return _of_hypothesis(key)
    pattern = _pattern(key, config)
    settings = [(name, item) for name, item in settings_of(type(config)) if f"{name}.".startswith(f"{pattern}.")]
    if not settings:  # a key within a setting, such as capability.items.piqa
        settings = [(name, item) for name, item in settings_of(type(config)) if f"{pattern}.".startswith(f"{name}.")]
    if not settings:
        close = difflib.get_close_matches(key, known_keys(type(config)), n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(close)}? " if close else ""
        raise BadInput(f"There is no setting {key}.", f"{hint}All settings: molt config show demo")
    name = key.split(".")[1] if key.startswith("tasks.") and pattern != key else ""
    return [
        _explanation(
            each, field, _value(config, each, name), stages_of(each), COMMANDS.get(_longest(each, COMMANDS), "")
        )
        for each, field in settings
    ]


def _of_hypothesis(key: str) -> list[Explanation]:
    """The same of a hypothesis file, whose values are in no configuration."""
    settings = [(OF_HYPOTHESIS + name, field) for name, field in settings_of(HypothesisConfig)]
    matching = [(name, field) for name, field in settings if matches(key, name)]
    if not matching:
        raise BadInput(f"There is no setting {key}.", "All settings: molt config explain hypothesis")
    return [_explanation(name, field, None, ("job", "hypothesis")) for name, field in matching]


def _pattern(key: str, config: Config) -> str:
    """The key with `*` for the name of a task that the configuration has."""
    parts = key.split(".")
    if parts[0] == "tasks" and len(parts) > 1 and parts[1] != "*":
        if parts[1] not in config.tasks:
            names = ", ".join(config.tasks) or "none"
            raise BadInput(
                f"There is no setting {key}: the config has no task {parts[1]}.",
                f"Its tasks are: {names}. Settings of any task: molt config explain 'tasks.*'",
            )
        parts[1] = "*"
    return ".".join(parts)


def stages_of(key: str) -> tuple[str, ...]:
    """The stages whose key a setting enters, by its dotted key with `*` for the name of a task."""
    return USED_BY[_longest(key, USED_BY)]


def _longest(key: str, table: dict[str, Any]) -> str:
    """The longest entry of a table that a dotted key begins with; empty if there is none."""
    parts = key.split(".")
    beginnings = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((one for one in beginnings if one in table), "")


def _explanation(key: str, field: FieldInfo, value: Any, stages: Sequence[str], command: str = "") -> Explanation:
    return Explanation(
        key=key,
        description=field.description or "",
        type=type_text(field),
        choices=choices_of(field),
        default=default_of(field),
        required=field.is_required(),
        value=value,
        stages=list(stages),
        command=command,
    )


def _value(config: Config, key: str, name: str) -> Any:
    """The value in a configuration; for each task, by name, unless one is named."""
    node: Any = config.model_dump(mode="json")
    parts = key.split(".")
    if parts[0] == "tasks":
        values = {task: settings[parts[-1]] for task, settings in node["tasks"].items()}
        return values[name] if name else values
    for part in parts:
        node = node[part]
    return node
