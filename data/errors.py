"""The errors that a user is meant to read: what went wrong, and the command or edit that mends it."""

from __future__ import annotations


class MoltError(Exception):
    """Our own error (exit code 1). Shown as one line; `--traceback` shows where it came from."""

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class BadInput(MoltError):
    """The input, configuration or surroundings cannot work as given (exit code 2). Nothing was changed."""

    exit_code = 2


class NotPromoted(MoltError):
    """A candidate was judged and kept out of use (exit code 3)."""

    exit_code = 3
