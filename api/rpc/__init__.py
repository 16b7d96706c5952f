"""The edge's gRPC API for agencies: ``rubrica.v1.SigningService``."""
