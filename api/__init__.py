"""What the outside talks to: the edge (REST, transactions) and, on its own origin, the gate."""
