"""What the server answers with: which model for which project, images to predictions to regions."""
