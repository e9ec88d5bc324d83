"""Redis or an embedded Valkey, RQ queues and workers; RQ's objects stay in here."""
