"""X.509: profiles, the issuer port and its adapters, checks of what an issuer gives back."""
