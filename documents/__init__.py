"""Formats: prepare, finish, validate. Pure work on open files; bytes of TSA, OCSP and CRL come from the caller."""
