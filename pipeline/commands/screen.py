"""Commands for what the screen set aside: what it is, and overruling it."""

from __future__ import annotations

from typing import Annotated

import typer

from moltlm.pipeline.commands.common import ConfigArg, Json, Overrides, arguments, group, loaded
from moltlm.pipeline.console import Console

app = typer.Typer()
screen_app = group(app, "screen", "Look at the conversations that a retraining does not take, and overrule that.")
Ids = Annotated[str, typer.Argument(help="an id, or several with commas between them")]


@screen_app.command("list")
def screen_list(config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """What is set aside, with its reasons."""
    from moltlm.pipeline.service import set_aside

    settings, same = loaded(config, overrides), arguments(config, overrides)
    rows = list(set_aside.read(settings).values())
    lines = []
    for row in rows:
        lines.append(f"{row.id}  {'allowed' if row.allow else 'set aside'}: {', '.join(row.reasons)}")
        lines += [f"  {name}: {_short(text)}" for name, text in (("user", row.question), ("answer", row.answer))]
    path = set_aside.path(settings)
    lines += [f"{len(rows)} in {path}. To learn one all the same: molt screen allow ID {same}"] if rows else []
    Console(json_output).result([row.to_row() for row in rows], "\n".join(lines) or "Nothing is set aside.")


@screen_app.command("allow")
def screen_allow(ids: Ids, config: ConfigArg, overrides: Overrides = None, json_output: Json = False) -> None:
    """Learn these all the same in the next cycle; `all` for everything that is set aside."""
    from moltlm.pipeline.service import set_aside

    same = arguments(config, overrides)
    rows = set_aside.allow(loaded(config, overrides), ids.split(","), same)
    text = f"{len(rows)} will be learned. next: molt retrain {same}"
    Console(json_output).result([row.id for row in rows], text)


@screen_app.command("refuse")
def screen_refuse(
    ids: Ids,
    config: ConfigArg,
    overrides: Overrides = None,
    cycle: Annotated[
        str, typer.Option(help="the cycle that learned them, which is opened again: the rest of it is new once more")
    ] = "last",
    json_output: Json = False,
) -> None:
    """Leave conversations of a cycle out from now on; `molt blame` names those that did harm."""
    from moltlm.pipeline.service import blame

    settings = loaded(config, overrides)
    same = arguments(config, overrides)
    rest = blame.refuse(settings, cycle, ids.split(","), same)
    text = f"{len(ids.split(','))} are set aside, and {rest} are new once more. next: molt retrain {same}"
    Console(json_output).result({"new_again": rest}, text)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 90 else f"{words[:87]}..."
