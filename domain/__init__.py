"""The vocabulary that every zone shares: pure values, no I/O."""
