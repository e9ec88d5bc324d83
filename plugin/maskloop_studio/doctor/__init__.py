"""`maskloop doctor`: looks at everything the loop needs, each by a check of its own."""
