"""Which image to ask about next."""
