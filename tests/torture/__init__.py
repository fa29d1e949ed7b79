"""The torture test: a runner that is killed while its providers misbehave, and a judge who was not there.

    python -m torture --quick        (by way of ./scripts/torture)

    manifests   what is asked for: every prompt its own, so that a task tells whose it is
    providers   the pretend providers in a process of their own, which is restarted now and then
    commands    the program under test, as a user starts it: arguments, environment, exit codes
    trial       one queue and its folder: orders, providers, runs, and what is left behind
    kills       when and how a run is killed, drawn from a seed
    evidence    what is left behind, gathered: the program's own JSON, its event log, files, the providers' ledger
    judge       what the evidence proves: doubles, losses, wrong adoptions, differences. Pure
    counts      what it proves by counting: jobs, slots, keys, and what a run says of it all; rules of the judge's, too
    random_kills, sweep   the ways of killing: at random moments, at every named fail point, and there again
    power       a loss of power: what was never synced is gone
    mutants     runners that are wrong on purpose, which the judge must catch
    nursery     starts the program without the second that Python needs to import it
    catalogue   the faults by number
    scenarios   trouble that does not come by itself, each kind staged on purpose
    parts       the torture in parts, each a process of its own; programme says which there are
    tally       what was done and what was found, as counts that add up
    report      one JSON and one table

Nothing here imports the program but for the names it states itself (fail points, the table of transitions), and what
works in processes of its own: `nursery`, and the patches of the mutants.

Beside it the same promises in one process, with a clock that stands until it is moved: there the program is imported,
because it is what is tried.

    model       stories by the hundred, until so many steps are made: model(100_000, "a seed") returns what was counted
    story       what may happen next, step by step, and how a story must come to an end
    memory      a runner whose queue is in memory, and that may die at any commit
    pretend     a provider that is nothing but data
    invariants  what must hold after every step
"""
