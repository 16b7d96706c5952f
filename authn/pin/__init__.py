"""Login by PIN: a chosen access code and a one-time PIN by SMS; level low, never a signature."""
