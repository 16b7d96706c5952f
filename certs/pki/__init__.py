"""The development PKI: root, issuing CA, OCSP responder, CRLs and time-stamping authority, in a process of its own."""
