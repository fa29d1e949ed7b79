"""The figures of runner, each as a ratio against something measured in the same run (`./scripts/bench --help`).

    __main__        options, order, output          results     a line of the report, its table and its JSON
    sizes           how much, by option             measure     rounds, CPU, memory, lag of the loop
    children        processes beside this one       child       … what runs in them
    provider        the least server that will do   queues      the runner, put together as `runner run` does
    plain           the scripts that keep nothing

    p01_journey     jobs a second, end to end       p06_download    against curl
    p02_changes     durable changes a second        p07_resume      from the process's start to its first poll
    p03_enqueue     from a table into the queue     p08_start       --help, and status of many jobs
    p04_night       how long the night is           p09_crowd       many tasks in flight
    p05_publish     from the provider to the disk   p10_overhead    CPU for one rendered job

Variants take turns within a round, forwards and backwards, so that what else the machine does falls on all alike. A
line shows the median of its rounds and, behind it, the least and the most. Only the ratios travel between machines.
Left out: DBOS, whose dependencies would be a quarter of ours, for a figure that the others already put a floor under.
"""
