"""`molt`, the command line. Imports are light; a command imports torch only when it runs."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from moltlm import __version__
from moltlm.data.errors import MoltError
from moltlm.pipeline.commands import correct, measures, setup, stages, studies, upkeep, use
from moltlm.pipeline.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Teach a local model new tasks without losing who it is, and prove it. Start with: molt demo",
    epilog="Exit codes: 0 done, 1 internal error, 2 bad input or usage, 3 judged and not promoted.",
)
for part in (setup, stages, measures, studies, use, upkeep, correct):
    app.add_typer(part.app)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    trace: Annotated[bool, typer.Option("--traceback", help="print the traceback of an error")] = False,
) -> None:
    if version:
        typer.echo(f"moltlm {__version__}")
        raise typer.Exit()


def main(arguments: list[str] | None = None) -> None:
    """The entry point: an error that a user can fix becomes two lines and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries
    try:
        app(args=arguments)
    except MoltError as error:
        if "--traceback" in arguments:
            traceback.print_exc()
        Console().error(error.what, error.fix)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
