"""Labels that are probably wrong: ranked by what models say that had not seen the image."""
