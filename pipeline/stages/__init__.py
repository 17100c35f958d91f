"""The stages of a run: what each makes, and what is measured of it."""
