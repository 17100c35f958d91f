"""What a person reads: results.json, the report, figures, tables."""
