"""The store's conformance suite: the same promises, kept on SQLite and on PostgreSQL."""
