"""Shipped configs, personas and hypotheses; a package only so that they are installed with the code."""
