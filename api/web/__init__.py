"""Pages of the edge for people: upload, review, download, validation. They ask for no secret and carry no script."""
