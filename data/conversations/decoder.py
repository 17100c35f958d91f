"""The decoder of JSON as programs write it."""

from __future__ import annotations

import json
from math import inf

DECODER = json.JSONDecoder(parse_constant={"Infinity": inf, "-Infinity": -inf}.get)
"""`NaN`, as pandas and others write a missing value, is null."""
