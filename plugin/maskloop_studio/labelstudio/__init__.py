"""Reaching images and Label Studio: whose address it is, who gets the token, what went wrong."""
