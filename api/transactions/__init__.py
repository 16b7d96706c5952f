"""Submit, authorise, collect: the edge's own domain with its own tables."""
