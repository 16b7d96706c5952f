"""One-time codes by SMS: every code opens a capsule."""
