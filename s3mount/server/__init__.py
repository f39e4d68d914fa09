"""The S3 HTTP API over the engine."""
