"""Providers that a person describes in a YAML file of their own (`--providers FILE`), without a line of code.

    example.provider.yaml   the format, explained and shown; printed by `runner providers --example`
    scalars · shape         what such a file may say, as models that check it; the JSON Schema comes from them
    complaints              what the models refuse, as problems with a place and a hint
    fields · pricing        what a manifest's words become, and what they cost, as tables
    dialect                 how a described provider is asked, and how its answers are read
    promises                what may be printed about a lost answer
    building                all of it together: an ordinary `Provider`, with what only the whole can tell noted
    reader                  a file in, providers out

A description is data: no expressions, and no templates beyond `{task_id}`. Paths into answers are dotted keys.
"""
