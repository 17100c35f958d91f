"""The whole configuration, how it is read from YAML, and overrides as KEY=VALUE. Imports no torch."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from moltlm.adapters.config import (
    AdaptersConfig,
    DpoConfig,
    LoraSettings,
    ModelConfig,
    PersonalityConfig,
    ProtectConfig,
    RouterConfig,
    TrainSettings,
)
from moltlm.data.config import (
    FiltersConfig,
    ImportConfig,
    PairsConfig,
    PersonaConfig,
    ReplayConfig,
    Section,
    TaskConfig,
    TeacherConfig,
)
from moltlm.data.errors import BadInput
from moltlm.data.io import parse_yaml, read_yaml
from moltlm.evals.config import (
    CapabilityConfig,
    GateConfig,
    HypothesisConfig,
    JudgeConfig,
    KnowledgeConfig,
    PersonaEvalConfig,
    PressureConfig,
    ProfileConfig,
)


class RunConfig(Section):
    """Where a run's files go, and the seed of everything random in it."""

    folder: Path = Field(default=Path("runs/demo"), description="the folder for everything that this run writes")
    seed: int = Field(default=0, ge=0, description="seed of sampling, data order and adapter initialisation")


class RetrainConfig(Section):
    """One retraining cycle: train a candidate on new conversations, and judge it against the active personality."""

    conversations: Path = Field(
        default=Path("conversations"), description="a JSONL file of `messages`, or a folder of such files"
    )
    min_new: int = Field(default=8, ge=1, description="a cycle does nothing with fewer new exchanges than this")
    steps: int = Field(default=30, ge=2, description="optimizer steps of the retraining")
    learning_rate: float = Field(default=2e-4, gt=0, description="learning rate of the retraining")
    replay_ratio: float = Field(default=0.5, ge=0, lt=1, description="share of the training examples that is replay")


class ScheduleConfig(Section):
    """When the timer that `molt schedule install` writes runs `molt retrain`."""

    every: Literal["daily", "weekly", "monthly"] = Field(default="weekly", description="how often to retrain")
    at: str = Field(default="03:30", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="local time of day, HH:MM")


class RegistryConfig(Section):
    """The store of judged adapters."""

    folder: Path = Field(default=Path("runs/registry"), description="the folder for judged adapters and their history")


class SequenceConfig(Section):
    """A comparison of methods: each one learns all tasks in order, once for each seed."""

    methods: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="the settings that each method changes, as KEY: VALUE; `tasks.*.KEY` changes all tasks",
    )
    reference: str = Field(default="unprotected", description="the method that the others are compared with")
    seeds: list[int] = Field(
        default_factory=lambda: [0],
        min_length=1,
        description="seeds of examples, data order and adapter initialisation",
    )


class Config(Section):
    """A whole configuration file. A section or setting that is left out has its default."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    persona: PersonaConfig = PersonaConfig()
    conversations: ImportConfig = ImportConfig()
    teacher: TeacherConfig = TeacherConfig()
    pairs: PairsConfig = PairsConfig()
    filters: FiltersConfig = FiltersConfig()
    lora: LoraSettings = LoraSettings()
    train: TrainSettings = TrainSettings()
    personality: PersonalityConfig = PersonalityConfig()
    dpo: DpoConfig = DpoConfig()
    replay: ReplayConfig = ReplayConfig()
    protect: ProtectConfig = ProtectConfig()
    router: RouterConfig = RouterConfig()
    tasks: dict[str, TaskConfig] = Field(default_factory=dict, description="tasks to teach in this order, by name")
    capability: CapabilityConfig = CapabilityConfig()
    persona_eval: PersonaEvalConfig = PersonaEvalConfig()
    pressure: PressureConfig = PressureConfig()
    profile: ProfileConfig = ProfileConfig()
    judge: JudgeConfig = JudgeConfig()
    gate: GateConfig = GateConfig()
    sequence: SequenceConfig = SequenceConfig()
    hypotheses: list[str] = Field(
        default_factory=list, description="hypotheses to test: shipped names, or paths of YAML files"
    )
    knowledge: KnowledgeConfig = KnowledgeConfig()
    registry: RegistryConfig = RegistryConfig()
    retrain: RetrainConfig = RetrainConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @model_validator(mode="after")
    def consistent(self) -> Config:
        self.adapters()
        if self.personality.parameters == "full":
            raise ValueError("personality.parameters=full is for the arms of hypotheses; tasks need an adapter beneath")
        if self.sequence.methods and self.sequence.reference not in self.sequence.methods:
            raise ValueError(f"sequence.reference={self.sequence.reference} is none of sequence.methods")
        for name, section in (("teacher", self.teacher), ("judge", self.judge)):
            for key in ("url", "model"):
                if section.kind == "endpoint" and not getattr(section, key):
                    raise ValueError(f"{name}.kind=endpoint needs {name}.{key}")
        for name, task in self.tasks.items():
            if not name.isidentifier() or name in ("base", "personality", "default", "ref"):
                raise ValueError(f"tasks.{name}: a task needs a plain name other than base, personality, default, ref")
            if task.batch_size % self.train.gradient_accumulation:
                raise ValueError(
                    f"tasks.{name}.batch_size={task.batch_size} must be a multiple of "
                    f"train.gradient_accumulation={self.train.gradient_accumulation}"
                )
        return self

    def adapters(self) -> AdaptersConfig:
        return AdaptersConfig(
            model=self.model,
            lora=self.lora,
            train=self.train,
            personality=self.personality,
            dpo=self.dpo,
            protect=self.protect,
            router=self.router,
        )


def shipped(*parts: str) -> Path:
    """A file or folder that is installed with molting."""
    return Path(str(resources.files("moltlm.configs").joinpath(*parts)))


def find(name: str, folder: str = "") -> Path:
    """`name` as a path, or else as a shipped file (`demo`, `h014`). Raises BadInput naming what is there."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name or path.is_file():
        if path.is_file():
            return path
    elif (candidate := shipped(folder, f"{name.lower()}.yaml")).is_file():
        return candidate
    there = sorted(file.stem for file in shipped(folder).glob("*.yaml"))
    close = difflib.get_close_matches(path.stem, there, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise BadInput(f"No config {name}.", f"{hint}Give a path to a YAML file, or one of: {', '.join(there)}.")


def load(name: str, overrides: list[str] | None = None) -> Config:
    """Read a config file and apply overrides such as `dpo.beta=0.2`. Raises BadInput for anything that cannot be."""
    path = find(name)
    raw = _parse(path)
    for override in overrides or []:
        _apply(raw, override)
    return _validate(Config, raw, path)


def load_hypothesis(name: str) -> HypothesisConfig:
    path = find(name, "hypotheses")
    return _validate(HypothesisConfig, _parse(path), path)


def _parse(path: Path) -> dict[str, Any]:
    raw = read_yaml(path, "config")
    if not isinstance(raw, dict):
        raise BadInput(f"config {path} holds no settings.", "Start from a copy: molt config show demo > mine.yaml")
    return raw


def vary(config: Config, changes: dict[str, Any], what: str) -> Config:
    """The configuration with settings changed, by dotted key. Raises BadInput, naming `what` asks for it."""
    raw = config.model_dump(mode="json")
    for key, value in changes.items():
        _set(raw, key, value)
    return _validate(type(config), raw, Path(what))


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise BadInput(f"{override!r} is not an override.", "Write KEY=VALUE, for example dpo.beta=0.2")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        raise BadInput(f"{override!r}: the value is not valid YAML.", f"Quote it: '{key}=\"...\"'") from None
    _set(raw, key, value)


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    """`a.b.c`; a `*` stands for everything that is there, and `{name}` in the value for the name of each."""
    *parents, last = key.split(".")
    nodes = {"": raw}
    for part in parents:
        below = {
            (name if part == "*" else outer): node.setdefault(name, {})
            for outer, node in nodes.items()
            for name in (list(node) if part == "*" else [part])
        }
        if not all(isinstance(node, dict) for node in below.values()):
            raise BadInput(f"{key}: {part} is a value, not a section.", "Look at the sections: molt config show demo")
        nodes = below
    for name, node in nodes.items():
        node[last] = value.replace("{name}", name) if name and isinstance(value, str) else value


def _validate(kind: type[BaseModel], raw: dict[str, Any], path: Path) -> Any:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"]]
        key = ".".join(where)
        if first["type"] == "extra_forbidden":
            known = _keys(kind)
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or difflib.get_close_matches(
                where[-1], [name.rsplit(".", 1)[-1] for name in known], n=1
            )
            hint = f"Did you mean {close[0]}? " if close else ""
            raise BadInput(f"{path}: unknown setting {key}.", f"{hint}See: molt config show demo") from None
        message = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{path}: {key + ': ' if key else ''}{message}.", "See: molt config show demo") from None


def _keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in kind.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _keys(field.annotation, f"{prefix}{name}.")
    return names


def dump(config: Config) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
