"""Images that are made up or read from a folder, with the exact masks that belong to them."""
