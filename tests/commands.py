"""Commands as a user gives them."""

from __future__ import annotations

import pytest

from moltlm.pipeline import cli


def molt(*arguments: str) -> int:
    """The exit code of `molt ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    return int(stopped.value.code or 0)
