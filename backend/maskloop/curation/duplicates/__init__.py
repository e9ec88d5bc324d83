"""Images that are there twice, nearly twice, or unlike all others."""
