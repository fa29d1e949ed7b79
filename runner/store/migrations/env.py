"""Alembic's entry: runs the steps on the connection that `schema` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from runner.store.tables import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=False,  # the transaction around all steps is ours
)
context.run_migrations()
