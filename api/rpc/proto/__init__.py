"""The public gRPC interface of the edge."""
