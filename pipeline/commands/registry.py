"""Commands for the registry: what is in use, where it comes from, and how it is switched."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, arguments, group, loaded
from moltlm.pipeline.console import Console

if TYPE_CHECKING:
    from moltlm.pipeline.service.bundles import Bundle
    from moltlm.pipeline.service.entries import Entry
    from moltlm.pipeline.service.registry import Registry
    from moltlm.pipeline.service.shared import SharedRegistry

app = typer.Typer()
NAME_HELP = "an id, current, previous, candidate, anchor, or an alias of yours"
registry_app = group(app, "registry", "List, show, promote and roll back what is in use.")


@registry_app.command("list")
def registry_list(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """The adapters that were judged, and which are in use. With --json, the history too."""
    from moltlm.pipeline.service import bundles

    console = Console(json_output)
    registry = _registry(config, overrides)
    current, (entries, damaged), history = registry.current(), registry.entries(), registry.history()
    lines = []
    for entry in entries:
        mark = "*" if current.get(entry.slot) == entry.id else " "
        checks = entry.verdict.get("checks", [])
        failed = [f"{each['name']} {each['outcome']}" for each in checks if each["outcome"] != "pass"]
        passed = "passed the gate" if checks else "not judged"
        lines.append(f"{mark} {entry.id}  {entry.added[:19]}  {', '.join(failed) or passed}")
    lines += [f"! {name}  damaged, and cannot be used" for name in damaged]
    names = bundles.aliases(history)
    lines += [f"  {alias} = {identity}" for alias, identity in names.items()]
    if entries:
        same = arguments(config, overrides)
        lines.append(f"* in use. next: molt registry show current {same}   molt registry promote ID {same}")
    value = {
        "current": current,
        "bundle": registry.bundle().id if current else None,
        "aliases": names,
        "entries": [asdict(entry) for entry in entries],
        "anchor": registry.anchor(),
        "damaged": damaged,
        "history": [asdict(change) for change in history],
    }
    console.result(
        value,
        "\n".join(lines) or f"The registry {registry.folder} is empty. next: molt run {arguments(config, overrides)}",
    )


@registry_app.command("promote")
def registry_promote(
    name: Annotated[str, typer.Argument(help=NAME_HELP)],
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Put a kept adapter, or a whole bundle, into use by hand."""
    from moltlm.pipeline.service.entries import Entry

    registry = _registry(config, overrides)
    target, before = _resolved(registry, name), registry.current()
    out = registry.promote(target.id)
    lines = []
    if isinstance(target, Entry):
        against, former = target.judged_against, before.get(target.slot, "nothing")
        if against and against != former:
            lines.append(f"It was judged against {against}, not against {former}, which it replaces.")
        if not against and target.slot == "personality" and registry.anchor() != target.id:
            begin = f"molt registry rebaseline {arguments(config, overrides)}"
            lines.append(f"Retrainings are still compared with {registry.anchor()}, too. To begin anew: {begin}")
    lines += [f"{target.id} is in use now. Undo: molt registry rollback {arguments(config, overrides)}"]
    why = ": it was trained above another personality" if isinstance(target, Entry) else ""
    lines += [f"{other} is not any more{why}." for other in out]
    Console(json_output).result(registry.current(), "\n".join(lines))


@registry_app.command("rollback")
def registry_rollback(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """Undo the last promotion."""

    now = _registry(config, overrides).rollback()
    Console(json_output).result(now, _in_use(now))


@registry_app.command("retire")
def registry_retire(
    slot: Annotated[str, typer.Argument(help="the name of a task in use")],
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """Take a task out of use, and those that were trained above it."""

    registry = _registry(config, overrides)
    out = registry.retire(slot)
    lines = [f"{identity} is not in use any more" for identity in out]
    undo = f"Undo: molt registry rollback {arguments(config, overrides)}"
    Console(json_output).result(registry.current(), "\n".join([*lines, undo]))


@registry_app.command("rebaseline")
def registry_rebaseline(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """Compare later retrainings with the personality in use instead of the first one (gate.anchor_margin)."""

    anchor = _registry(config, overrides).rebaseline()
    Console(json_output).result({"anchor": anchor}, f"later retrainings are compared with {anchor}, too")


@registry_app.command("repair")
def registry_repair(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """Replace a damaged state by the one before the last change, and damaged adapters by the run's own copies."""
    from moltlm.data.errors import BadInput
    from moltlm.pipeline.service import mending

    registry, same = _registry(config, overrides), arguments(config, overrides)
    is_damaged = registry.is_damaged()
    if is_damaged:
        registry.repair()
    mended, lost = mending.mend(registry, loaded(config, overrides).run.folder)
    if not (is_damaged or mended or lost):
        raise BadInput("Nothing in the registry is damaged.", f"See: molt registry list {same}")
    now = registry.current()
    lines = [f"{each} is copied again" for each in mended]
    lines += [f"{_in_use(now)}. Look whether that is right: molt registry list {same}"]
    Console(json_output).result({"in_use": now, "mended": mended, "lost": lost}, "\n".join(lines))
    if lost:
        raise BadInput(
            f"The run has no intact copy of {', '.join(lost)}.",
            f"Without it, go back to what was in use before: molt registry rollback {same}",
        )


@registry_app.command("show")
def registry_show(
    name: Annotated[str, typer.Argument(help=NAME_HELP)] = "current",
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """What a bundle or an adapter is, where it comes from, and whether it is still the first one."""
    from moltlm.pipeline.service import registry_page
    from moltlm.pipeline.service.bundles import Bundle

    registry = _registry(config, overrides)
    target = _resolved(registry, name)
    slots = target.adapters if isinstance(target, Bundle) else {target.slot: target.id}
    personality = slots.get("personality")
    value = {
        "id": target.id,
        "aliases": registry_page.names_of(registry, target.id),
        "bundle": asdict(target) if isinstance(target, Bundle) else None,
        "entries": {slot: asdict(registry.entry(identity)) for slot, identity in slots.items()},
        "still_the_first": asdict(registry_page.likeness(registry, registry.entry(personality)))
        if personality
        else None,
    }
    Console(json_output).result(value, "\n".join(registry_page.page(registry, target)))


@registry_app.command("diff")
def registry_diff(
    before: Annotated[str, typer.Argument(help=NAME_HELP)],
    after: Annotated[str, typer.Argument(help=NAME_HELP)] = "current",
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    json_output: Json = False,
) -> None:
    """What differs between two bundles or adapters."""
    from moltlm.pipeline.service import registry_page

    registry = _registry(config, overrides)
    lines = registry_page.differences(registry, _resolved(registry, before), _resolved(registry, after))
    Console(json_output).result({"differences": lines[1:]}, "\n".join(lines))


@registry_app.command("verify")
def registry_verify(config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False) -> None:
    """Hash all files of the registry and compare them with what was written; exit code 2 if one differs."""
    from moltlm.data.errors import BadInput
    from moltlm.pipeline.service import registry_page

    registry = _registry(config, overrides)
    problems = registry_page.problems(registry)
    count = len(list(registry.folder.glob("entries/[!.]*")))
    lines = [f"{identity}: {'; '.join(reasons)}" for identity, reasons in problems.items()]
    text = "\n".join(lines) or f"{count} adapters and the history are as they were written"
    Console(json_output).result({"adapters": count, "problems": problems}, text)
    if problems:
        raise BadInput(
            f"Not as it was written: {', '.join(problems)}.",
            f"Take them again from the run that trained them: molt registry repair {arguments(config, overrides)}",
        )


@registry_app.command("gc")
def registry_gc(
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove them; without it they are only listed")] = False,
    json_output: Json = False,
) -> None:
    """List, or remove with --yes, adapters that are not current, previous, candidate or anchor, and have no alias."""

    registry = _registry(config, overrides)
    unused = registry.unused()
    removed = registry.collect(unused) if yes else []
    following = f"next: molt registry gc {arguments(config, overrides)} --yes"
    damaged = registry.entries()[1]
    listed = [f"{each}{'  damaged' if each in damaged else ''}" for each in unused]
    lines = [f"removed {each}" for each in removed] if yes else [*listed, *([following] if unused else [])]
    value = {"unused": unused, "removed": removed}
    Console(json_output).result(value, "\n".join(lines) or "Nothing to remove. What was added within a day is kept.")


@registry_app.command("alias")
def registry_alias(
    alias: Annotated[str, typer.Argument(help="a name of yours")],
    name: Annotated[str, typer.Argument(help=NAME_HELP)],
    config: ConfigArg = "demo",
    overrides: Overrides = None,
    remove: Annotated[bool, typer.Option("--remove", help="take the name away from ID")] = False,
    json_output: Json = False,
) -> None:
    """Give a bundle or an adapter a name, under which it is shown and promoted, and which keeps it from `gc`."""

    registry = _registry(config, overrides)
    target = _resolved(registry, name).id
    registry.alias(alias, "" if remove else target)
    text = f"{alias} is {target} no more" if remove else f"{alias} is {target}"
    Console(json_output).result({"alias": alias, "id": None if remove else target}, text)


UrlArg = Annotated[str, typer.Argument(help="a place that machines share, such as s3://BUCKET/PATH")]


@registry_app.command("push")
def registry_push(
    url: UrlArg, config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False
) -> None:
    """Store the adapters and the history in object storage; refused where the storage has changes that are not here."""
    registry = _shared(config, overrides, url)
    stored = registry.push()
    lines = [*stored, f"{len(stored)} adapters stored; {url} has what {registry.folder} has"]
    Console(json_output).result({"stored": stored}, "\n".join(lines))


@registry_app.command("pull")
def registry_pull(
    url: UrlArg, config: ConfigArg = "demo", overrides: Overrides = None, json_output: Json = False
) -> None:
    """Take over the adapters and the history from object storage; refused where both have changed."""
    registry = _shared(config, overrides, url)
    fetched = registry.pull()
    lines = [*fetched, f"{len(fetched)} adapters fetched; {_in_use(registry.current())}"]
    Console(json_output).result({"fetched": fetched, "current": registry.current()}, "\n".join(lines))


def _shared(config: str, overrides: list[str] | None, url: str) -> SharedRegistry:
    from moltlm.pipeline.service.shared import SharedRegistry

    return SharedRegistry(loaded(config, overrides).registry.folder, url)


def _registry(config: str, overrides: list[str] | None) -> Registry:
    from moltlm.pipeline.service.registry import Registry

    return Registry(loaded(config, overrides).registry.folder)


def _in_use(adapters: dict[str, str]) -> str:
    """What is in use, by slot, for a reader."""
    return f"in use now: {', '.join(f'{slot}: {identity}' for slot, identity in adapters.items()) or 'nothing'}"


def _resolved(registry: Registry, name: str) -> Bundle | Entry:
    """What a name stands for. Raises BadInput for an unknown one, and for a configuration in its place."""
    from moltlm.data.errors import BadInput

    if name.endswith((".yaml", ".yml")):
        raise BadInput(
            f"{name} is a configuration; the name of a bundle or an adapter comes before it.",
            f"For what is in use: molt registry show current {name}",
        )
    return registry.resolve(name)
