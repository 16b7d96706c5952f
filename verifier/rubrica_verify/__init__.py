"""Verifies the log of a Rúbrica signing service offline: its own tree, its own reading, nothing of the service."""
