"""Experiments over many trainings: grids of hypotheses, sequences of tasks, knowledge."""
