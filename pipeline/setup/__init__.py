"""Before the first run: a new project, the machine, an estimate of memory."""
