"""PAdES (EN 319 142-1) in two steps: ``prepare`` before the citizen approves, ``finish`` after the core has signed."""
