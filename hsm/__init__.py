"""PKCS#11 and nothing else: workers, pool, keys, vault. Its errors are its own; the core converts them."""
