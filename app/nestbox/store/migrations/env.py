"""Read by Alembic: runs the revisions on the connection that `upgrade` hands over."""

from __future__ import annotations

from alembic import context

from nestbox.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by making it anew
    transactional_ddl=False,
)
context.run_migrations()
