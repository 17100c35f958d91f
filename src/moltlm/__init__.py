"""Teach a local language model new tasks without losing who it is, and prove it."""

__version__ = "0.1.0"
