"""The torture test: a runner that is killed while its providers misbehave, and a judge who was not there.

    python -m torture --kills 200        (by way of ./scripts/torture)

    manifests   what is asked for: every prompt its own, so that a task tells whose it is
    providers   the pretend providers in a process of their own, which is restarted now and then
    commands    the program under test, as a user starts it: arguments, environment, exit codes
    trial       one queue and its folder: orders, providers, runs, and what is left behind
    kills       when and how a run is killed, drawn from a seed
    evidence    what is left behind, gathered: the program's own JSON, its event log, files, the providers' ledger
    judge       what the evidence proves: doubles, losses, wrong adoptions, differences. Pure
    random_kills, sweep   the two ways of killing: at random moments, and at every named fail point
    figures     the report: one JSON and one table

None of these imports the program but for the names it states itself (fail points, the table of transitions).

Beside it the same promises in one process, with a clock that stands until it is moved: there the program is imported,
because it is what is tried.

    model       stories by the hundred, until so many steps are made: model(100_000, "a seed") returns what was counted
    story       what may happen next, step by step, and how a story must come to an end
    memory      a runner whose queue is in memory, and that may die at any commit
    pretend     a provider that is nothing but data
    invariants  what must hold after every step
"""
