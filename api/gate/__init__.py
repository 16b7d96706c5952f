"""The gate: takes sealed secrets and relays them. Own process, own origin, no state."""
