"""Chat exports to clean exchanges: formats, redaction, duplicates."""
