"""The HTTP API: a thin layer that turns requests into calls of the service."""
