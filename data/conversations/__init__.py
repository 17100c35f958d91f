"""Conversations as people have them: read, cleaned, accounted for."""
