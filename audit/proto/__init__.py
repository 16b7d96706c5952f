"""The core's internal gRPC interface for auditors."""
