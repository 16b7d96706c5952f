"""The edge's JSON API, and the two addresses that a citizen's browser visits."""
