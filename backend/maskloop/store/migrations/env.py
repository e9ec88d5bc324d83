"""What Alembic runs for each command: the steps, on the connection it was given."""

from alembic import context

from maskloop.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
