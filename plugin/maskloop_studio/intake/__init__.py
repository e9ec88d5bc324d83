"""Annotations on their way in: webhook, reconciliation, the annotation itself."""
