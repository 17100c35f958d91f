"""What holds a text, what was made from it, and what becomes of each: nothing is changed here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moltlm.adapters import card
from moltlm.data import persona as personas
from moltlm.data import replay
from moltlm.data.conversations import importers
from moltlm.data.conversations.corrections import FILE as CORRECTIONS
from moltlm.data.conversations.redact import redact
from moltlm.data.conversations.report import ImportReport
from moltlm.data.conversations.turns import Turn
from moltlm.data.conversations.voices import Voice
from moltlm.data.errors import BadInput
from moltlm.data.io import sha256_file
from moltlm.data.types import Exchange
from moltlm.pipeline.config import Config, shipped
from moltlm.pipeline.run import MARK
from moltlm.pipeline.service.forgetting import lineage, removal
from moltlm.pipeline.service.forgetting.search import Hits, search
from moltlm.pipeline.service.forgetting.target import Target
from moltlm.pipeline.service.registry import BEFORE, STATE, Registry

ROWS_GO, GOES, MARKED, SHRINKS, STAYS = "rows removed", "removed", "texts replaced", "exchanges removed", "stays"
ENDS = "ends before it"
HAND = "edit or delete it by hand"
SETTINGS = (STATE, BEFORE, "entry.json", "adapter_config.json", card.MANIFEST, "inputs.json", MARK)
"""Files of settings, names and hashes: a change would break the adapter or the history that they belong to."""
TAUGHT = ("train.jsonl", "neutral_train.jsonl", "new.jsonl", replay.EXCHANGES)
"""Files of rows that weights learned from; the others were only measured."""
TOP_LEVEL = (
    *("invocations.jsonl", "cycles.jsonl", "teacher.jsonl", "judge.jsonl", "set_aside.jsonl"),
    *("report.html", "report.md", "results.json"),
)
"""Files of a run beside its artifacts."""
SAMPLED = ("introspection", "practice")
"""Stages whose own texts are learned."""
HISTORY = ("carried", "pairs", "replay", "retrain")
"""Stages whose artifacts stay without the text, since what is in use began with them. Others are made anew."""


@dataclass(frozen=True)
class Place:
    """A file that holds it.

    Attributes:
        hits, of: rows of a file of rows, else texts.
        action: what becomes of it.
        reason: why it stays.
    """

    path: Path
    hits: int
    of: int
    action: str
    reason: str = ""


@dataclass
class Plan:
    """Everything that holds the target or was made from it.

    Attributes:
        places: files that the project wrote.
        sources: the user's own files.
        unread: files that could not be searched, and why.
        searched: number of files.
        artifacts: those that hold it or were made from it; taught: those of them from which weights learned it.
        adapters: registry ids of the weights that learned it; in_use: those of them that are in use.
        exchanges: what will be forgotten, to be measured; turns: its texts.
        files: hashes of the user's files that hold it.
    """

    target: Target
    places: list[Place] = field(default_factory=list)
    sources: list[Place] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    searched: int = 0
    artifacts: set[Path] = field(default_factory=set)
    taught: set[Path] = field(default_factory=set)
    adapters: set[str] = field(default_factory=set)
    in_use: set[str] = field(default_factory=set)
    exchanges: list[Exchange] = field(default_factory=list)
    turns: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)

    @property
    def removable(self) -> list[Place]:
        return [place for place in self.places if place.action != STAYS]


def make(config: Config, target: Target, also: list[Path]) -> Plan:
    """Search everything that the configuration names.

    Args:
        also: other files or folders to search, such as exports; nothing in them is changed.
    """
    plan = Plan(target)
    spoken_in = _learn_texts(config, target, plan)
    for path in _files(*_source_paths(config)):
        _take_source(plan, path, spoken_in)
    for path in _files(*also):
        _take(plan, path, plan.sources, lambda path: (STAYS, HAND))
    _exchanges_of_sources(config, plan)
    for path in _files(config.run.folder, config.registry.folder):
        _take(plan, path, plan.places, lambda path: _action(path, config.run.folder))
        _take_rows(plan, path)
    _lineage(plan, config)
    return plan


def add_file(target: Target, path: Path, voice: Voice) -> None:
    """Let every turn of a file of conversations count as a match.

    Raises:
        BadInput: if there is no conversation in it.
    """
    skipped: dict[str, str] = {}
    for _, turns in importers.spoken([path], voice, skipped.__setitem__):
        _add(target, [turn.text for turn in turns], range(len(turns)))
    if not target.texts and not target.exchanges:
        why = next(iter(skipped.values()), "it holds no conversation")
        raise BadInput(f"{path} names no text to forget: {why}", "Name a text: molt forget TEXT CONFIG")


def voice_of(config: Config) -> Voice:
    """What the persona is called in conversations that name their speakers."""
    return Voice((config.conversations.assistant or personas.load(config.persona).spec.name,))


def _learn_texts(config: Config, target: Target, plan: Plan) -> set[str]:
    """Let the redacted forms of the matching turns count as matches, and all that is said in a conversation of the
    person. Returns the files that they are in."""
    learned: dict[str, list[tuple[list[str], list[int]]]] = {}
    conversations = importers.spoken(_conversation_paths(config), voice_of(config), plan.unread.__setitem__)
    for name, group in itertools.groupby(conversations, key=lambda pair: pair[0]):
        count = 0
        for _, turns in group:
            count += 1
            places = _matching(turns, target)
            if places is not None:
                learned.setdefault(name, []).append(([turn.text for turn in turns], places))
        if target.person and count == 1 and _is_labelled(Path(name), turns, target):
            learned[name] = [([turn.text for turn in turns], list(range(len(turns))))]
    for texts, places in (each for rows in learned.values() for each in rows):
        _add(target, texts, places)
    return set(learned)


def _matching(turns: list[Turn], target: Target) -> list[int] | None:
    """The places of the turns of a conversation that the target does not find by itself: all, where the person speaks;
    else those in which redaction hides it. None if nothing in the conversation matches."""
    if target.person and any(target.holds(turn.speaker) for turn in turns if turn.speaker):
        return list(range(len(turns)))
    places = [place for place, turn in enumerate(turns) if target.holds_any([turn.text, turn.rejected])]
    return [place for place in places if not target.holds(redact(turns[place].text)[0])] if places else None


def _is_labelled(path: Path, turns: list[Turn], target: Target) -> bool:
    """Whether a transcript names the person more often than what is said in it: before what they say."""
    if not path.is_file():
        return False
    whole = path.read_text(encoding="utf-8", errors="replace")
    return target.count(whole) > sum(target.count(turn.text) for turn in turns)


def _add(target: Target, texts: list[str], places: Any) -> None:
    for place in places:
        around = [texts[each] for each in (place - 1, place + 1) if 0 <= each < len(texts)]
        for form in {texts[place], redact(texts[place])[0]}:
            target.add_turn(form, [shape for each in around for shape in {each, redact(each)[0]}])


def _conversation_paths(config: Config) -> list[Path]:
    paths = [*map(Path, config.conversations.paths), config.retrain.conversations]
    return [path for path in dict.fromkeys(paths) if path.exists()]


def _source_paths(config: Config) -> list[Path]:
    """Conversations, the persona's folder if it is not a shipped one, and the files of tasks."""
    paths = [*_conversation_paths(config), Path(config.persona.spec)]
    paths += [Path(task.path) for task in config.tasks.values() if task.path]
    return [path for path in paths if path.exists() and not path.resolve().is_relative_to(shipped().resolve())]


def _files(*paths: Path) -> Iterator[Path]:
    """Every file once, in order; links are not followed, and nor are locks read."""
    taken: set[Path] = set()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not file.is_symlink() and file.name != ".lock" and file.resolve() not in taken:
                taken.add(file.resolve())
                yield file


def _take(plan: Plan, path: Path, places: list[Place], action_of: Any) -> Hits:
    hits = search(path, plan.target)
    plan.searched += 1
    if hits.error:
        plan.unread[str(path)] = hits.error
    if hits.count:
        places.append(Place(path, hits.count, hits.of, *action_of(path)))
    return hits


def _take_source(plan: Plan, path: Path, spoken_in: set[str]) -> None:
    is_served = removal.is_served(path)
    if path.name == CORRECTIONS or is_served:
        hits = _take(plan, path, plan.places, lambda path: (ENDS if is_served else ROWS_GO, ""))
    else:
        hits = _take(plan, path, plan.sources, lambda path: (STAYS, "" if removal.has_rows(path) else HAND))
    is_theirs = any(name == str(path) or name.startswith(f"{path}/") for name in spoken_in)
    if is_theirs and not hits.count:
        hidden = Place(path, 1, hits.of, GOES) if is_served else Place(path, 1, hits.of, STAYS, HAND)
        (plan.places if is_served else plan.sources).append(hidden)
    if is_theirs or hits.count:
        plan.files.add(sha256_file(path))


def _exchanges_of_sources(config: Config, plan: Plan) -> None:
    """Note what imports would read of it, redacted and not."""
    voice = voice_of(config)
    for redacts in (True, False):
        changes = {"redact": redacts, "near_duplicate": 1.0}
        settings = config.conversations.model_copy(update=changes)
        for path in _conversation_paths(config):
            try:
                for item in importers.read([path], settings, ImportReport(), voice):
                    _note(plan, item)
            except BadInput as error:
                plan.unread.setdefault(str(path), error.what)


def _note(plan: Plan, item: Exchange) -> None:
    texts = [*(turn["content"] for turn in item.prompt), item.answer, item.rejected]
    if plan.target.holds_any(texts):
        plan.exchanges.append(item)
        plan.turns |= {text for text in texts if plan.target.holds(text)}


def _take_rows(plan: Plan, path: Path) -> None:
    """Note what a file of the run holds of it that was learned."""
    if path.name in TAUGHT and plan.places and plan.places[-1].path == path:
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(ValueError, KeyError, AttributeError):  # a damaged row
                row = json.loads(line)
                row = row.get("exchange", row)
                answer = row.get("answer") or row["chosen"]
                _note(plan, Exchange(row["prompt"], answer, rejected=row.get("rejected", "")))


def _action(path: Path, run_folder: Path) -> tuple[str, str]:
    """What becomes of a file of the run or the registry that holds it, and why if it stays."""
    if not _is_written_by_molt(path, run_folder):
        return STAYS, f"not written by molt; {HAND}"
    if path.name in SETTINGS or path.suffix == ".safetensors":
        return STAYS, "settings and names, which its adapter or history depends on"
    if (path.parent / replay.MANIFEST).is_file() and path.name == replay.EXCHANGES:
        return SHRINKS, ""
    artifact = artifact_of(path, run_folder)
    if path.is_relative_to(run_folder) and artifact is None and path.suffix == ".json":
        return GOES, ""  # results, which are written anew with the report
    if artifact is not None and not is_history(artifact):
        return GOES, ""
    return (ROWS_GO if path.suffix == ".jsonl" else MARKED if path.suffix == ".json" else GOES), ""


def _is_written_by_molt(path: Path, run_folder: Path) -> bool:
    """Whether a file lies where only this project writes: a run folder may be any folder of the user."""
    if not path.is_relative_to(run_folder):
        return (path.parent / "entry.json").is_file() or path.name in (STATE, BEFORE)
    artifact = artifact_of(path, run_folder)
    if artifact is not None:
        return (artifact / "artifact.json").is_file() or artifact.name.endswith(".partial")
    return (
        path.name in TOP_LEVEL if path.parent == run_folder else path.parent.name in ("configs", "references", "pages")
    )


def artifact_of(path: Path, run_folder: Path) -> Path | None:
    """The artifact that a file belongs to, complete or not."""
    parts = path.relative_to(run_folder).parts if path.is_relative_to(run_folder) else ()
    return run_folder / parts[0] / parts[1] if len(parts) > 2 and parts[0] != "references" else None


def is_history(artifact: Path) -> bool:
    if not (artifact / "artifact.json").is_file():
        return False  # interrupted
    has_weights = next(artifact.rglob(card.MANIFEST), None) is not None
    return has_weights or artifact.parent.name.partition("-")[0] in HISTORY


def _lineage(plan: Plan, config: Config) -> None:
    run_folder, registry = config.run.folder, Registry(config.registry.folder)
    stored = lineage.artifacts(run_folder)
    folders = {artifact_of(place.path, run_folder): place.path for place in plan.places}
    holding = {folder for folder in folders if folder is not None}
    origin = {
        folder
        for place in plan.places
        if (folder := artifact_of(place.path, run_folder)) is not None and _is_taught(place.path, folder)
    }
    before, marked_ids = lineage.marked(run_folder, registry.folder)
    plan.taught = origin | lineage.descendants(stored, origin) | before
    plan.artifacts = holding | plan.taught
    plan.adapters = lineage.ids(stored, plan.taught) | marked_ids
    plan.in_use = plan.adapters & set(registry.current().values())


def _is_taught(path: Path, artifact: Path) -> bool:
    return path.name in TAUGHT or (path.suffix == ".jsonl" and artifact.parent.name.startswith(SAMPLED))
