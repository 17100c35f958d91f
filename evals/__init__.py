"""Measuring: item-level records, and the statistics and verdicts that read them."""
