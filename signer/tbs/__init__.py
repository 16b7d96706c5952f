"""What is signed, built from fields: the core never parses it."""
