"""What happens to one job: prepare and submit, look for a lost answer, follow, fetch, settle.

Each step is one function over a claimed job: it asks the provider through its adapter, has a verdict decide what the
answer means, and records the verdict before it returns. Nothing is remembered here that a `kill -9` could lose.
"""
