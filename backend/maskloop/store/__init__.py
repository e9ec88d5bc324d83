"""What annotators said, kept in a relational database, and the images they said it about."""
