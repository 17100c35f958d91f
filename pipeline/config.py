"""The whole configuration, read from YAML and overrides as KEY=VALUE. Imports no torch."""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

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
    NO_PART,
    FiltersConfig,
    HomePath,
    HomeText,
    ImportConfig,
    IntrospectionConfig,
    MoveConfig,
    PairsConfig,
    PersonaConfig,
    ReplayConfig,
    Section,
    TaskConfig,
    TeacherConfig,
)
from moltlm.data.errors import BadInput
from moltlm.data.io import Twice, parse_yaml, read_yaml
from moltlm.evals.config import (
    AgentConfig,
    CapabilityConfig,
    GateConfig,
    HypothesisConfig,
    JudgeConfig,
    KnowledgeConfig,
    PersonaEvalConfig,
    PressureConfig,
    ProfileConfig,
    ServedConfig,
    distinct,
)
from moltlm.pipeline.problems import Problem, attributed, inconsistent, problems_of, raise_for

RESERVED = ("base", "personality", "default", "ref")
"""Names that no task can have: states and PEFT's own adapters."""
HYPOTHESES = "hypotheses"
"""The folder of the shipped hypotheses."""
OF_HYPOTHESIS = "hypothesis."
"""What the keys of a hypothesis file begin with where they are explained."""


def _is_url(folder: Path) -> bool:
    """Whether a path was meant as an address, such as s3://BUCKET/PATH."""
    return re.match(r"[a-z][a-z0-9+]+:/", folder.as_posix()) is not None


class RunConfig(Section):
    """Where a run's files go, and the seed of everything random in it."""

    folder: HomePath = Field(default=Path("runs/demo"), description="the folder for everything that this run writes")
    seed: int = Field(default=0, ge=0, description="seed of sampling, data order and adapter initialisation")
    storage: str = Field(
        default="",
        description="a place that machines share, as a URL of fsspec such as s3://BUCKET/PATH: what another machine "
        "made for the same inputs is fetched from there, and what is made here is stored there",
        json_schema_extra=NO_PART,
    )

    @field_validator("folder")
    @classmethod
    def is_on_this_machine(cls, folder: Path) -> Path:
        if _is_url(folder):
            raise ValueError(
                "a run works in a folder of this machine; it is shared through run.storage=s3://BUCKET/PATH"
            )
        return folder


class RetrainConfig(Section):
    """One retraining cycle: train a candidate on new conversations, and judge it against the personality in use."""

    conversations: HomePath = Field(
        default=Path("conversations"),
        description="a file or folder of conversations, in any format that `molt data import` reads",
    )
    sources: list[HomePath] = Field(
        default_factory=list,
        description="further files and folders that a cycle reads where they lie, such as the sessions of agents: "
        "~/.claude/projects, ~/.codex/sessions, ~/.openclaw/agents",
    )
    min_new: int = Field(default=8, ge=1, description="a cycle does nothing with fewer new exchanges than this")
    steps: int = Field(default=30, ge=2, description="optimizer steps of the retraining")
    learning_rate: float = Field(default=2e-4, gt=0, description="learning rate of the retraining")
    replay_ratio: float = Field(default=0.5, ge=0, lt=1, description="share of the training examples that is replay")
    distill_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the KL to the personality in use on replayed answers (learning without forgetting); 0: "
        "off",
    )
    remedies: list[Literal["replay", "kl", "strength", "distillation"]] = Field(
        default_factory=list,
        description="what is tried, in this order, when a candidate does not pass the gate. replay: half of what is "
        "not replay becomes replay; kl: four times dpo.kl_weight, 0.5 at least; strength: half of the trained change; "
        "distillation: retrain.distill_weight, 1 at least. Each is one more look at the gate",
    )

    @field_validator("remedies")
    @classmethod
    def once(cls, remedies: list[str]) -> list[str]:
        if len(set(remedies)) < len(remedies):
            raise ValueError("name each remedy once")
        return remedies


class ScreenConfig(Section):
    """What a retraining does not take from new conversations. It is set aside, each with its reasons, in
    `set_aside.jsonl` of the run folder: `molt screen list` shows it, and `molt screen allow` overrules it."""

    pull: bool = Field(
        default=True,
        description="set aside answers that pull hard away from the personality: below `quantile` both in their margin "
        "(log-likelihood a token under the personality in use, less that under the base) and on the persona direction; "
        "and answers below it by the classifier that tells the persona's answers from others'",
    )
    quantile: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="share of the spec's own held-out answers that lie below the limit of each measure",
    )
    injections: bool = Field(
        default=True,
        description="set aside conversations with orders to the model: to ignore its instructions, to be somebody "
        "else, role tags in a turn, hidden or invisible text",
    )
    own_output: bool = Field(
        default=True,
        description="set aside what the model said itself, word for word or nearly as it was served, unless it got a "
        "thumb up or is a correction",
    )
    own_share: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="own_output: share of an answer's tokens that the personality in use would say itself from which "
        "the answer is its own",
    )
    near: float = Field(
        default=0.85,
        gt=0,
        le=1,
        description="own_output: similarity to an answer that was served from which an answer is a copy of it",
    )


class ScheduleConfig(Section):
    """When the timer that `molt schedule install` writes runs `molt retrain`."""

    every: Literal["daily", "weekly", "monthly"] = Field(default="weekly", description="how often to retrain")
    at: str = Field(default="03:30", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="local time of day, HH:MM")
    jitter_minutes: int = Field(
        default=0, ge=0, le=720, description="spread jobs and machines over so many minutes after `at`, each at its own"
    )
    notify: str = Field(
        default="",
        description="who is told of a cycle: a command line, which gets its record as JSON on standard input, or an "
        "https URL, to which that is posted; $NAME takes either from an environment variable. Commands run only if "
        "MOLTLM_ALLOWED_COMMANDS names them, and hosts are told only if MOLTLM_ALLOWED_HOSTS does",
    )
    notify_on: list[Literal["promoted", "not promoted", "failed", "nothing new"]] = Field(
        default=["promoted", "not promoted", "failed"], description="the outcomes of which `notify` is told"
    )
    metrics_file: HomePath | None = Field(
        default=None,
        description="a file that each cycle rewrites with its metrics, for the textfile collector of Prometheus; it "
        "ends in .prom",
    )

    @field_validator("metrics_file")
    @classmethod
    def is_for_metrics(cls, file: Path | None) -> Path | None:
        if file is not None and file.suffix != ".prom":
            raise ValueError("a file of metrics ends in .prom; it is rewritten, and could be any file of yours")
        return file


class RegistryConfig(Section):
    """The store of judged adapters."""

    folder: HomePath = Field(
        default=Path("runs/registry"), description="the folder for judged adapters and their history"
    )

    @field_validator("folder")
    @classmethod
    def is_on_this_machine(cls, folder: Path) -> Path:
        if _is_url(folder):
            raise ValueError(
                "a registry is a folder of this machine; it is shared by: molt registry push s3://BUCKET/PATH"
            )
        return folder


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
    _distinct = field_validator("seeds")(distinct)
    orders: list[list[str]] = Field(
        default_factory=list,
        description="orders of the tasks: the first seed learns them in the first order, the second in the second, and "
        "so on, from the beginning again after the last; empty: the order of `tasks`",
    )
    history: bool = Field(
        default=True,
        description="score every earlier task after every training; false: a task only right before and right after "
        "its own training and after the last one, which takes less time and misses a best score in between",
    )
    bounds: bool = Field(
        default=False,
        description="also train, with each seed, every task alone above the personality, and one adapter on all tasks "
        "at once: what the methods are compared with",
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
    introspection: IntrospectionConfig = IntrospectionConfig()
    replay: ReplayConfig = ReplayConfig()
    protect: ProtectConfig = ProtectConfig()
    router: RouterConfig = RouterConfig()
    tasks: dict[str, TaskConfig] = Field(default_factory=dict, description="tasks to teach in this order, by name")
    capability: CapabilityConfig = CapabilityConfig()
    persona_eval: PersonaEvalConfig = PersonaEvalConfig()
    pressure: PressureConfig = PressureConfig()
    profile: ProfileConfig = ProfileConfig()
    agent: AgentConfig = AgentConfig()
    judge: JudgeConfig = JudgeConfig()
    served: ServedConfig = ServedConfig()
    gate: GateConfig = GateConfig()
    sequence: SequenceConfig = SequenceConfig()
    hypotheses: list[HomeText] = Field(
        default_factory=list, description="hypotheses to test: shipped names, or paths of YAML files"
    )
    knowledge: KnowledgeConfig = KnowledgeConfig()
    registry: RegistryConfig = RegistryConfig()
    retrain: RetrainConfig = RetrainConfig()
    move: MoveConfig = MoveConfig()
    screen: ScreenConfig = ScreenConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @model_validator(mode="after")
    def consistent(self) -> Config:
        if problems := [*self._sections_together(), *self._each_task()]:
            raise inconsistent(problems)
        return self

    def _sections_together(self) -> list[tuple[str, str]]:
        """Key and reason of what does not go together."""
        problems = []
        try:
            self.adapters()
        except ValidationError as error:
            problems += [("", each["msg"].removeprefix("Value error, ")) for each in error.errors()]
        if not problems and self.personality.parameters == "full":
            reason = "personality.parameters=full is for the arms of hypotheses; tasks need an adapter beneath"
            problems.append(("personality.parameters", reason))
        if self.gate.refusal_margin and not self.profile.refusals:
            reason = f"gate.refusal_margin={self.gate.refusal_margin:g} needs requests: set profile.refusals"
            problems.append(("gate.refusal_margin", reason))
        if self.sequence.methods and self.sequence.reference not in self.sequence.methods:
            reason = f"sequence.reference={self.sequence.reference} is none of sequence.methods"
            problems.append(("sequence.reference", reason))
        if self.sequence.bounds and "joint" in self.tasks:
            reason = "sequence.bounds trains an adapter joint, on all tasks at once: call tasks.joint something else"
            problems.append(("sequence.bounds", reason))
        for order in self.sequence.orders:
            if sorted(order) != sorted(self.tasks):
                reason = (
                    f"sequence.orders: {', '.join(order) or 'an empty one'} is no order of the tasks, which are "
                    f"{', '.join(self.tasks) or 'none'}: name each once"
                )
                problems.append(("sequence.orders", reason))
        for name, section in (("teacher", self.teacher), ("judge", self.judge)):
            missing = [key for key in ("url", "model") if section.kind == "endpoint" and not getattr(section, key)]
            problems += [(f"{name}.{key}", f"{name}.kind=endpoint needs {name}.{key}") for key in missing]
        return problems

    def _each_task(self) -> list[tuple[str, str]]:
        """Key and reason of what is wrong with tasks."""
        problems, accumulation = [], self.train.gradient_accumulation
        for name, task in self.tasks.items():
            if not name.isidentifier() or name in RESERVED:
                reason = f"tasks.{name}: a task needs a plain name other than {', '.join(RESERVED)}"
                problems.append((f"tasks.{name}", reason))
            if task.batch_size % accumulation:
                batch = f"tasks.{name}.batch_size={task.batch_size}"
                reason = f"{batch} must be a multiple of train.gradient_accumulation={accumulation}"
                problems.append((f"tasks.{name}.batch_size", reason))
        return problems

    def adapters(self) -> AdaptersConfig:
        """The sections that training reads. Raises ValidationError if they do not go together."""
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
    """A file or folder that is installed with moltlm."""
    return Path(str(resources.files("moltlm.configs").joinpath(*parts)))


def find(name: str, folder: str = "") -> Path:
    """The file of a config or hypothesis: a path, or the name of a shipped one (`demo`, `h014`).

    Raises:
        BadInput: if there is none, naming the shipped ones.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name or path.is_file():
        if path.is_file():
            return path
    elif (candidate := shipped(folder, f"{name.lower()}.yaml")).is_file():
        return candidate
    available = sorted(file.stem for file in shipped(folder).glob("*.yaml"))
    close = difflib.get_close_matches(path.stem, available, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    kind = "hypothesis" if folder == HYPOTHESES else "config"
    raise BadInput(f"No {kind} {name}.", f"{hint}Give a path to a YAML file, or one of: {', '.join(available)}.")


def load(name: str, overrides: list[str] | None = None) -> Config:
    """Read a config file and apply overrides such as `dpo.beta=0.2`.

    Raises:
        BadInput: naming everything that is wrong, with the override or the file that it comes from.
    """
    in_file, raw = _parse(find(name)), _parse(find(name))
    problems = [problem for override in overrides or [] if (problem := _apply(raw, override))]
    unread = [problem.source for problem in problems]
    applied = [override for override in overrides or [] if override not in unread]
    if invalid := problems_of(Config, raw):
        problems += attributed(invalid, problems_of(Config, in_file) if applied else invalid, name, applied)
    raise_for(problems)
    return Config.model_validate(raw)


def load_hypothesis(name: str) -> HypothesisConfig:
    """Read a hypothesis file. Raises BadInput naming everything that is wrong with it."""
    return _validate(HypothesisConfig, _parse(find(name, HYPOTHESES)), name, OF_HYPOTHESIS)


def check_hypotheses(config: Config) -> None:
    """Raises BadInput naming everything that is wrong with the hypothesis files of a configuration."""
    problems: list[Problem] = []
    for name in config.hypotheses:
        try:
            problems += attributed(problems_of(HypothesisConfig, _parse(find(name, HYPOTHESES))), [], name, [])
        except BadInput as error:
            problems.append(Problem("", error.what.rstrip("."), source="hypotheses"))
    raise_for(problems, OF_HYPOTHESIS)


def _parse(path: Path) -> dict[str, Any]:
    raw = read_yaml(path, "config")
    if not isinstance(raw, dict):
        raise BadInput(f"config {path} holds no settings.", "Start from a copy: molt config show demo > mine.yaml")
    return raw


def vary(config: Config, changes: dict[str, Any], source: str) -> Config:
    """The configuration with settings changed, by dotted key. Raises BadInput, naming `source`, which changes them."""
    raw = config.model_dump(mode="json")
    for key, value in changes.items():
        if reason := _set(raw, key, value):
            raise BadInput(f"{source}: {reason}.", "See: molt config show demo")
    return _validate(type(config), raw, source)


def with_overrides(config: Config, overrides: list[str]) -> Config:
    """The configuration with overrides such as `dpo.beta=0.2`. Raises BadInput naming everything that is wrong."""
    raw = config.model_dump(mode="json")
    problems = [problem for override in overrides if (problem := _apply(raw, override))]
    raise_for([*problems, *attributed(problems_of(Config, raw), [], "", overrides)])
    return Config.model_validate(raw)


def _validate(kind: type[BaseModel], raw: dict[str, Any], source: str, within: str = "") -> Any:
    raise_for(attributed(problems_of(kind, raw), [], source, []), within)
    return kind.model_validate(raw)


def _apply(raw: dict[str, Any], override: str) -> Problem | None:
    """Set what an override says, or say what is wrong with it."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        return Problem("", "is not an override. Write KEY=VALUE, for example dpo.beta=0.2", source=override)
    try:
        reason = _set(raw, key, parse_yaml(text))
    except Twice as error:
        reason = str(error.problem)
    except yaml.YAMLError:
        reason = f"the value is not valid YAML. Quote it: '{key}=\"...\"'"
    return Problem(key, reason, source=override) if reason else None


def _set(raw: dict[str, Any], key: str, value: Any) -> str:
    """Set the value of a dotted key; `*` stands for every name in a section, and `{name}` in the value for that name.
    Returns what hinders it, if anything does."""
    *parents, last = key.split(".")
    nodes = {"": raw}
    for part in parents:
        below = {
            (name if part == "*" else outer): node.setdefault(name, {})
            for outer, node in nodes.items()
            for name in (list(node) if part == "*" else [part])
        }
        if not all(isinstance(node, dict) for node in below.values()):
            return f"{key}: {part} is a value, not a section"
        nodes = below
    for name, node in nodes.items():
        node[last] = value.replace("{name}", name) if name and isinstance(value, str) else value
    return ""


def dump(config: Config) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
