"""Claims, records, statistics and verdicts."""
