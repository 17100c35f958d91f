"""The server of `molt serve`: an OpenAI-compatible endpoint for the states of a run, and its page."""
