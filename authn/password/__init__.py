"""The permanent password: never stored, never hashed; it opens the vault secret or nothing does."""
