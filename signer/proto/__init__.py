"""The core's internal gRPC interface for staging, approving and signing."""
