"""The whole loop on one machine with a real Label Studio and a simulated annotator."""
