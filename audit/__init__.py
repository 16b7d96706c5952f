"""The append-only log. The Merkle tree, checkpoints and receipts come on top of it."""
