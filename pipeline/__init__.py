"""The job: configuration, stages, runs, the command line, the report."""

__version__ = "0.1.0"
