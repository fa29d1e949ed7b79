"""runner: an asynchronous batch job runner with a persistent queue, for paid image and video generation APIs.

The promise, which outranks every feature: never pay twice, never lose what was paid for, know the bill before and
after.

Words: a *manifest* (YAML) names one *batch* of *jobs*; a job is one intended paid render. An *attempt* is one paid
submission of a job; the provider's own object is its *task*; a downloaded file is an *output*. Limits, balance and
ledger belong to an *account*: one API key of one provider. Money is counted in *credits*.

Floors, top to bottom; an arrow only ever points down:

    cli                                    one file per command; the one place where things are put together
    engine · plan · report                 who goes next · what would happen and cost · the morning after
    lifecycle                              what happens to one job: host, submit, look, poll, fetch, settle
    store · expand · references · downloads
    providers · manifest · client          dialects as data · YAML, checked · the one door to HTTP
    jobs · ledger · limits · exchange · errors · clock …   pure, no I/O
    (sandbox)                              the pretend providers, over real loopback HTTP; imports nothing of ours

The journey of a job: `manifest` reads, `expand` makes jobs keyed by content, `store.enqueue` adds the new ones;
`engine` asks `store.claims` who may go next and hands each job to `lifecycle`, which speaks to the provider through
an adapter and `client`, and records every step through the store's pen before the next one is taken.
"""

__version__ = "0.1.0"
