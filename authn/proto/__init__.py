"""The core's internal gRPC interface for factors, callers and register."""
