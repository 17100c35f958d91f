"""`molt`, the command line. Imports are light; a command imports torch only when it runs."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated

import typer

from moltlm import __version__
from moltlm.adapters import processes
from moltlm.data.errors import BadInput, MoltError
from moltlm.pipeline.commands import (
    correct,
    forget,
    measures,
    move,
    operation,
    registry,
    screen,
    serve,
    setup,
    stages,
    studies,
    upkeep,
    use,
)
from moltlm.pipeline.console import Console, printable

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Teach a local model new tasks without losing who it is, and prove it. Start with: molt demo",
    epilog="Exit codes: 0 done, 1 internal error, 2 bad input or usage, 3 judged and not promoted.",
)
for part in (setup, stages, measures, studies, use, serve, upkeep, move, screen, operation, registry, forget, correct):
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
        with processes.joined() as launch:
            _run(launch, arguments)
    except MoltError as error:
        if "--traceback" in arguments:
            sys.stderr.write(printable(traceback.format_exc()))
        Console().error(error.what, error.fix)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        if "--traceback" in arguments:
            sys.stderr.write(printable(traceback.format_exc()))
        Console().error(*_disk_error(error))
        raise SystemExit(BadInput.exit_code) from None


def _run(launch: processes.Launch | None, arguments: list[str]) -> None:
    """The command, or in a process that another one runs it in, a part of its trainings."""
    if launch is None or launch.number == 0:
        app(args=arguments)
        return
    from moltlm.adapters.helping import help_out

    help_out(launch)


def _disk_error(error: OSError) -> tuple[str, str]:
    """What is wrong with the disk or the folder, and what mends it."""
    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "The disk is full. What was finished is kept.",
            "Free some space (df -h), and run the same command again.",
        )
    return (
        f"The file or folder{where} cannot be used: {error.strerror}.",
        "Give yourself the right to it, or name another one: run.folder=FOLDER, registry.folder=FOLDER or --out",
    )


if __name__ == "__main__":
    main()
