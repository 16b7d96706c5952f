"""The service's public gRPC interface, generated from its own ``.proto``."""
