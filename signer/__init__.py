"""The signing core (EN 419 241-1: signature activation module)."""
