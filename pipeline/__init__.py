"""The job: configuration, stages, runs, the command line, the report."""
