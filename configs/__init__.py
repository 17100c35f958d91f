"""The shipped configs, personas and hypotheses. It is a package so that they are installed with the code."""
