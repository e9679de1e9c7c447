"""What outlives the process, in SQLite or PostgreSQL. Knows no HTTP and no MQTT."""
