"""The service as one of several workers: an MQTT cluster reaches the things, a database is the table."""
