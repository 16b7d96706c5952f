"""XAdES (EN 319 132-1) in two steps: ``prepare`` before the citizen approves, ``finish`` after the core has signed."""
