"""The only home of SQL: tables, statements, the pen, migrations. One set of statements for SQLite and PostgreSQL.

tables      the schema                     store       the door: open, own, record, read
changes     events move jobs               pen         one writer, shared commits
engines     how connections are opened     again       lost connections, lost commits
claims      the right to make a request    intents     what will be paid, frozen and reserved
accounts    limits that hold for everyone  windows     the request log
waking      when to look again             brink       before the first byte leaves
enqueue     what a manifest asks for       work        jobs as the lifecycle sees them
ownership   locks, heartbeats, rescue      queries     what people read
commits     whether any were lost          checkup     whether a queue is whole
backup      a copy of one moment           salvage     what a damaged queue still tells
"""

from runner.store.store import Store, open_store, read_store

__all__ = ["Store", "open_store", "read_store"]
