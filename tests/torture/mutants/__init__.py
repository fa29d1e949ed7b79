"""Runners that are wrong on purpose, one crime each (reliability.md section 1.5): what a torture that is worth anything
must catch.

    patches     how each breaks the program, done in its process before anything else
    plays       what is done to the runner, so that the crime comes to light
    listed      the eighteen: what is broken, what is played, which rule must see it
    catching    a mutant is tried and judged; and the honest program in its place
"""
