"""The command that carries a personality to another base model."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moltlm.data.errors import NotPromoted
from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, arguments, loaded, running
from moltlm.pipeline.console import Console

if TYPE_CHECKING:
    from moltlm.pipeline.service.moving.move import Outcome

app = typer.Typer()


@app.command()
def move(
    config: ConfigArg,
    new_base: Annotated[str, typer.Argument(help="the base to move to: a local folder, a hub id or an embedded one")],
    overrides: Overrides = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE that holds on the new base only; may be repeated")
    ] = None,
    bundle: Annotated[
        str, typer.Option(help="what is moved: an id, current, previous, or an alias of yours")
    ] = "current",
    out: Annotated[
        Path | None, typer.Option(help="file for the configuration on the new base; by default beside the former one")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be carried and how long it takes; train nothing")
    ] = False,
    json_output: Json = False,
) -> None:
    """Carry a personality and its tasks to another base model, and prove that it is the same character there."""
    console, settings = Console(json_output), settings or []
    with running(loaded(config, overrides), console) as old:
        from moltlm.pipeline.service.moving import move as module
        from moltlm.pipeline.service.moving import moved

        target = moved.moved(old.config, new_base, settings)
        job = module.begin(old, target, bundle)
        path = out or moved.file_of(config, new_base)
        if dry_run:
            from moltlm.pipeline.setup import moving

            ahead = moving.look_ahead(job)
            console.result(asdict(ahead), "\n".join([*ahead.lines(), f"its configuration would be {path}"]))
            return
        retry = ["molt", "move", config, new_base, *(overrides or []), *(f"--set={each}" for each in settings)]
        outcome = module.move(
            job, lambda target: moved.write(path, moved.text_of(target, str(path)), shlex.join(retry))
        )
        console.result(_value(outcome, path), "\n".join([*outcome.lines(), *_following(outcome, path)]))
    if not outcome.promoted:
        same = arguments(config, overrides)
        raise NotPromoted(
            "What was moved is not promoted; what was in use stays.",
            f"Talk to it: molt chat {path} --own   Use it all the same: molt registry promote {outcome.id} {same}",
        )


def _value(outcome: Outcome, path: Path) -> dict[str, Any]:
    fields = {key: value for key, value in vars(outcome).items() if key not in ("config", "tasks")}
    return {**fields, "tasks": [asdict(result) for result in outcome.tasks], "config": str(path)}


def _following(outcome: Outcome, path: Path) -> list[str]:
    if not outcome.promoted:
        return []
    return [f"{outcome.id} is in use. next: molt chat {path}", f"back: molt registry rollback {path}"]
