"""Numbers, intervals and names as text, for the page, its Markdown and the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from moltlm.data.state import CONTROL
from moltlm.evals.stats import Comparison, Estimate

PATHS = {
    "red": "learned, nothing lost",
    "blue": "learned, something lost: forgetting",
    "green": "not learned, something lost: failed",
    "grey": "not decided by these items, or nothing learned and nothing lost",
}
"""What the colour of a path means (docs: path colours)."""


def path_name(colour: str) -> str:
    """The name of a path with its meaning, such as "red path (learned, nothing lost)"."""
    return f"{colour} path ({PATHS[colour]})"


def state_label(name: str) -> str:
    """A state or an adapter in words: `personality+shell-control` is "with shell, no replay"."""
    task = name.removeprefix("personality+")
    words = task.removesuffix(CONTROL).replace("+", " + ") + (", no replay" if task.endswith(CONTROL) else "")
    return words if task == name else f"with {words}"


def number(value: Any, digits: int = 0, scale: float = 1, sign: bool = False) -> str:
    """A number for the page; a dash for one that is absent or unknown."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return minus(f"{value * scale:{'+' if sign else ''}z,.{digits}f}")


def interval(value: Any, digits: int = 0, scale: float = 1, sign: bool = False) -> str:
    """The interval of a value with the bounds `low` and `high`."""
    bounds = (value.low, value.high) if value else (None, None)
    low, high = (number(bound, digits, scale, sign) for bound in bounds)
    return "interval unknown" if "–" in (low, high) else f"{low} to {high}"


def p_value(value: Any) -> str:
    """A p-value, with more digits where it is small."""
    if not isinstance(value, int | float):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def minus(text: str) -> str:
    """Hyphens before digits, and those that stand alone between spaces, become minus signs."""
    return re.sub(r"(?<![\w.])-(?=[\d.]|inf)|(?<= )-(?= )", "−", text)


def points(value: Estimate) -> str:
    """An estimate on 0..1 as points of 100 with its interval."""
    return f"{value.mean * 100:.0f} ({bounds(value)})"


def change(value: Comparison, unit: str = "") -> str:
    """A change on 0..1 as signed points with its interval."""
    return f"{value.difference * 100:+z.1f}{unit} ({bounds(value, 1, '+')})"


def bounds(value: Estimate | Comparison, digits: int = 0, sign: str = "") -> str:
    """The interval of a value on 0..1 in points of 100."""
    low, high = value.low * 100, value.high * 100
    if not (math.isfinite(low) and math.isfinite(high)):
        return "interval unknown"
    return f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}"


def listed(items: Sequence[str]) -> str:
    """ "a, b and c"."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else "".join(items)
