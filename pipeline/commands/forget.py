"""The command that forgets: what holds a text is plan, removed, and searched again."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltlm.data.errors import BadInput, NotPromoted
from moltlm.pipeline.commands.common import Json, loaded, running
from moltlm.pipeline.console import Console

if TYPE_CHECKING:
    from moltlm.data.types import Exchange
    from moltlm.pipeline.config import Config
    from moltlm.pipeline.run import Run
    from moltlm.pipeline.service.forgetting.likelihood import Standing
    from moltlm.pipeline.service.forgetting.plan import Place, Plan
    from moltlm.pipeline.service.forgetting.target import Target

app = typer.Typer()
SHOWN = 30


@app.command()
def forget(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[TEXT|FILE] CONFIG [KEY=VALUE]...",
            help="a text, or a file of conversations whose turns are to go (not with --person); a YAML file or shipped "
            "config; and settings to change",
            show_default=False,
        ),
    ],
    person: Annotated[
        str, typer.Option(help="a person: the conversations in which they speak, and texts that name them")
    ] = "",
    regex: Annotated[bool, typer.Option("--regex", help="TEXT is a regular expression")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="remove it; without this nothing is changed")] = False,
    sources: Annotated[bool, typer.Option("--sources", help="with --yes: also in your own files, row by row")] = False,
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="with --yes: train again what has learned it, then remove the old weights"),
    ] = False,
    likelihood: Annotated[
        bool, typer.Option("--likelihood", help="measure whether the weights in use know it; needs the model")
    ] = False,
    also: Annotated[
        list[Path] | None, typer.Option(help="another file or folder to search, such as exports; it is not changed")
    ] = None,
    json_output: Json = False,
) -> None:
    """Find all that holds a text or was made from it, remove it, and search again. Without --yes it only lists."""
    console = Console(json_output)
    what, config, overrides = _words(words, person)
    settings = loaded(config, overrides)
    if missing := [path for path in also or [] if not path.exists()]:
        raise BadInput(f"--also {missing[0]} does not exist.", "Name a file or folder that exists.")
    from moltlm.pipeline.service.forgetting import forget as module
    from moltlm.pipeline.service.forgetting import plan as plans

    target = _target(what, person, regex, settings)
    if what and not regex and Path(what).suffix and "/" in what and not Path(what).exists():
        console.say(f"There is no file {what}, so this is searched as a text.")
    if settings.run.storage:  # what other machines made may hold it
        with running(settings, console) as run:
            run.fetch_all()
    plan = plans.make(settings, target, also or [])
    command = shlex.join(["molt", "forget", *words, *(["--person", person] if person else []), *["--regex"] * regex])
    lines, value = _listed(plan), _value(plan)
    unseen = _unseen(settings, target)
    if likelihood and not retrain:
        measured = _measured(settings, console, plan.exchanges, unseen, "in use")
        lines, value = _with(measured, lines, value)
    is_anywhere = bool(plan.removable or plan.sources or plan.adapters)
    if not yes or not is_anywhere:
        fix = f"To remove it: {command} --yes" if is_anywhere else ""
        console.result({**value, "changed": False}, "\n".join([*lines, "Nothing was changed.", fix]).rstrip())
        return
    with running(settings, console) as run:
        changed = module.remove(run, plan, sources)
    after = plans.make(settings, target, also or [])
    lines += _proof(after, changed)
    value |= {"changed": [str(place.path) for place in changed], "left": _value(after)}
    if not retrain:
        lines += [f"Train again what has learned it: {command} --yes --retrain"] if plan.adapters else []
        console.result(value, "\n".join(lines))
        return
    before = _measured(settings, console, plan.exchanges, unseen, "before") if plan.in_use else {}
    gone = _retrained(settings, console, plan, shlex.join([config, *overrides]))
    remaining = [item for item in unseen if item.question in {each.question for each in _unseen(settings, target)}]
    measured = before | _measured(settings, console, plan.exchanges, remaining, "after")
    lines, value = _with(measured, lines, value)
    lines.append(f"removed weights: {', '.join(gone) or 'none'}")
    if gone and settings.run.storage:
        lines.append("From a registry in object storage they are removed by: molt registry push URL CONFIG")
    console.result({**value, "removed_weights": gone}, "\n".join(lines))


def _words(words: list[str], person: str) -> tuple[str, str, list[str]]:
    """What is to be forgotten, the configuration, and its overrides."""
    needed = 1 if person else 2
    if len(words) < needed or (person and len(words) > 1 and "=" not in words[1]):
        raise BadInput(
            "It takes a text or a file and a configuration, or --person and a configuration.",
            "molt forget TEXT CONFIG   or: molt forget --person NAME CONFIG",
        )
    return "" if person else words[0], words[needed - 1], words[needed:]


def _target(what: str, person: str, regex: bool, settings: Config) -> Target:
    from moltlm.pipeline.service.forgetting import plan as plans
    from moltlm.pipeline.service.forgetting import target

    if person:
        return target.of_person(person)
    if not regex and Path(what).is_file():
        turns = target.Target(f"the turns of {what}")
        plans.add_file(turns, Path(what), plans.voice_of(settings))
        return turns
    return target.of_pattern(what, regex)


def _listed(plan: Plan) -> list[str]:
    """What holds it, for a reader."""
    lines = [f"{plan.target.label}: {len(plan.removable)} files hold it, of {plan.searched} that were searched"]
    lines += _places("written by molt:", plan.places)
    lines += _places("your own (--sources removes rows; otherwise imports leave it out by its hash):", plan.sources)
    lines += [f"could not be searched: {path}: {why}" for path, why in plan.unread.items()]
    for identity in sorted(plan.adapters):
        lines.append(f"weights that learned it: {identity}{', in use' if identity in plan.in_use else ''}")
    if plan.adapters:
        lines.append("Nothing unlearns a text in weights: they have to be trained again without it (--retrain).")
    return lines


def _places(title: str, places: list[Place]) -> list[str]:
    lines = [
        f"  {place.path}: {place.hits} of {place.of}, {place.action}{f' ({place.reason})' if place.reason else ''}"
        for place in places[:SHOWN]
    ]
    more = [f"  and {len(places) - SHOWN} more"] if len(places) > SHOWN else []
    return [title, *lines, *more] if places else []


def _proof(after: Plan, changed: list[Place]) -> list[str]:
    """What a second search says."""
    lines = [f"{len(changed)} files were changed or removed."]
    rest = _places("it is still in:", after.removable)
    lines += rest or [f"Searched {after.searched} files again: none that molt wrote holds it."]
    lines += _places("it stays in settings and names:", [place for place in after.places if place.reason])
    return lines + _places("your own files still hold it, and imports leave it out:", after.sources)


def _value(plan: Plan) -> dict[str, Any]:
    places = {"places": plan.places, "sources": plan.sources}
    return {
        "target": plan.target.label,
        "searched": plan.searched,
        **{name: [{**asdict(each), "path": str(each.path)} for each in rows] for name, rows in places.items()},
        "unread": plan.unread,
        "exchanges": len(plan.exchanges),
        "adapters": sorted(plan.adapters),
        "in_use": sorted(plan.in_use),
    }


def _with(measured: dict[str, Standing], lines: list[str], value: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    sentences = [standing.sentence(name) for name, standing in measured.items()]
    return [*lines, *sentences], {
        **value,
        "likelihood": {name: asdict(standing) for name, standing in measured.items()},
    }


def _unseen(settings: Config, target: Target) -> list[Exchange]:
    """The held-out exchanges of the run that do not hold the target."""
    from moltlm.data import pairs as pair_data
    from moltlm.data.rows import read_rows
    from moltlm.data.types import Pair

    files = sorted(settings.run.folder.glob("pairs/*/heldout.jsonl"), key=lambda path: path.stat().st_mtime)
    rows = [pair_data.exchange_of(pair) for pair in read_rows(files[-1], Pair)] if files else []
    return [item for item in rows if not target.holds_any([item.question, item.answer])]


def _measured(
    settings: Config, console: Console, removed: list[Exchange], unseen: list[Exchange], name: str
) -> dict[str, Standing]:
    """How the personality in use knows the removed texts; nothing where there is none, or no text."""
    from moltlm.pipeline.service.forgetting import likelihood
    from moltlm.pipeline.service.registry import Registry

    registry = Registry(settings.registry.folder)
    current = registry.current().get("personality")
    if current is None or not removed:
        console.say("The likelihood is not measured: there is no personality in use, or no text to compare.")
        return {}
    with running(settings, console) as run:
        measured = likelihood.measure(run, removed, unseen, {name: registry.path(current)})
    return {f"{current} ({name})": standing for name, standing in measured.items()}


def _retrained(settings: Config, console: Console, plan: Plan, same: str) -> list[str]:
    """Train again from the last personality that has not learned it, or from the base; the removed weights.

    Raises:
        NotPromoted: what has learned it is still in use, since nothing that passed the gate replaces it.
    """
    from moltlm.pipeline.service.forgetting import forget as module
    from moltlm.pipeline.service.registry import Registry

    registry = Registry(settings.registry.folder)
    with running(settings, console) as run:
        start = module.clean_start(run, plan.adapters)
        if start and plan.in_use:
            registry.promote(start)
            console.say(f"{start}, which has not learned it, is in use again; a cycle follows.")
            _cycle(run)
        elif plan.in_use or not registry.current():
            _whole_job(run, registry, same)
        gone = module.drop_weights(run)
    if plan.adapters & set(registry.current().values()):
        raise NotPromoted(
            "What has learned it is still in use: nothing that was trained without it passed the gate.",
            f"See why: molt report {same} --open   Take it out of use: molt registry rollback {same}",
        )
    return gone


def _cycle(run: Run) -> None:
    from moltlm.pipeline.service import retrain
    from moltlm.pipeline.service.forgetting import forget as module

    module.drop_cycles(run)
    retrain.cycle(run)


def _whole_job(run: Run, registry: Any, same: str) -> None:
    """Run all stages anew, and put what passes the gate into use in place of what has learned it."""
    from moltlm.pipeline import job
    from moltlm.pipeline.service import gate

    job.run_all(run, same)
    from moltlm.adapters import card
    from moltlm.pipeline.service.entries import entry_id
    from moltlm.pipeline.stages import tasks

    for adapter in gate.candidates(run):
        manifest = card.read(tasks.trained(run, adapter).folder)
        entry = registry.entry(entry_id(str(adapter), manifest.weights_sha256))
        if entry.verdict.get("promoted") and entry.fits(registry.current()):
            registry.promote(entry.id)
