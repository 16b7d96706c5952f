"""The command, and one composition root per process."""
