"""The errors that a user reads: what went wrong, and the command or edit that fixes it."""

from __future__ import annotations


class MoltError(Exception):
    """An expected error (exit code 1). It is shown as one line; `--traceback` shows where it was raised.

    Args:
        what: what went wrong, and why.
        fix: a command or an edit that fixes it.
    """

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class BadInput(MoltError):
    """The input, the configuration or the environment cannot work (exit code 2). Nothing was changed."""

    exit_code = 2


class NotPromoted(MoltError):
    """A candidate did not pass the gate (exit code 3)."""

    exit_code = 3
