"""Who the citizen is, and who calls."""
