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

_OF_THE_DISK = (errno.EROFS, errno.EACCES, errno.EPERM)
_FULL = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing")
"""In the errors of libraries that write files themselves: safetensors, torch."""
_FORBIDDEN = ("Read-only file system", "Permission denied (os error")

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
    Console.same = ()
    try:
        with processes.joined() as launch:
            _run(launch, arguments)
    except MoltError as error:
        if "--traceback" in arguments:
            sys.stderr.write(printable(traceback.format_exc()))
        Console().error(error.what, error.fix)
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        known = _machine_error(error)
        if known is None:
            raise
        if "--traceback" in arguments:
            sys.stderr.write(printable(traceback.format_exc()))
        Console().error(*known)
        raise SystemExit(BadInput.exit_code) from None


def _run(launch: processes.Launch | None, arguments: list[str]) -> None:
    """The command, or in a process that another one runs it in, a part of its trainings."""
    if launch is None or launch.number == 0:
        app(args=arguments)
        return
    from moltlm.adapters.helping import help_out

    help_out(launch)


def _machine_error(error: Exception) -> tuple[str, str] | None:
    """What the disk, a folder or the memory does not allow, and what mends it; None for any other error."""
    number, text = error.errno if isinstance(error, OSError) else None, str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or any(sign in text for sign in _FULL):
        return (
            "The disk is full. What was finished is kept.",
            "Free some space (df -h), and run the same command again.",
        )
    if number in _OF_THE_DISK or any(sign in text for sign in _FORBIDDEN):
        where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        return (
            f"The file or folder{where} cannot be used: {error.strerror if isinstance(error, OSError) else text}.",
            "Give yourself the right to it, or name another one: run.folder=FOLDER, registry.folder=FOLDER or --out",
        )
    if isinstance(error, MemoryError | RuntimeError):
        from moltlm.data import memory

        if memory.is_out_of_memory(error):
            short = memory.too_small("one of its steps")
            return short.what, short.fix
    return None


if __name__ == "__main__":
    main()
