"""Providers that a person describes in a YAML file of their own (`--providers FILE`), without a line of code.

    example.provider.yaml   the format, explained and shown; printed by `runner providers --example`
    scalars · shape         what such a file may say, as checked models: the JSON Schema comes from them
    complaints              what the models refuse, in words with a place
    checks                  what only the whole can tell: names, paths that agree, prices of fields that exist
    building · pricing      from a checked description to an ordinary `Provider`
    dialect                 how a described provider is asked, and how its answers are read
    reader                  a file in, providers out

A description is data: no expressions, and no templates beyond `{task_id}`. Paths into answers are dotted keys.
"""
