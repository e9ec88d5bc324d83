"""In-memory versions of the registry and the queue, for our tests and those of users."""
