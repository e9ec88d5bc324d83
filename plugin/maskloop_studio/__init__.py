"""Everything in maskloop that speaks Label Studio."""
