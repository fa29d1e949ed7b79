"""Verdicts: what an answer means for a job, decided without any I/O. `lifecycle` asks, and records what they say."""
