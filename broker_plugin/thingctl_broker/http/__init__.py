"""The HTTP API, its dialects and the console's files. Knows no MQTT and no database."""
