"""Mangled manifests, tables and inputs by the million: whatever is made of them, they are read, or refused in words of
the catalogue of bad input, within 2 s of CPU each and in a process of at most 200 MiB.

    seeds       good and bad manifests to begin with, the files beside them
    mangle      input number n of a seed: the same each time
    judge       what may come of an input, and nothing else
    child       a process that judges many, under limits that the system holds it to
    __main__    the long form

The short form stands in the suite (`test_manifest_fuzz.py`). The long one, from the top of the repository:

    PYTHONPATH=tests python -m fuzz --inputs 1000000               as many as the catalogue asks for: some two hours
    PYTHONPATH=tests python -m fuzz --seconds 600 --seed night     for ten minutes of CPU
    PYTHONPATH=tests python -m fuzz --seed night --only 4711       one of them again, with what it is made of

A manifest may have a million jobs, and takes its time for them. Here 2,000 are the most that are allowed, so that who
takes long does so without a reason.
"""
