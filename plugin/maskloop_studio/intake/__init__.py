"""Annotations from Label Studio into the database: webhooks, reconciliation, reading of regions."""
