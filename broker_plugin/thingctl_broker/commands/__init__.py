"""The execution table and its rules: accept, send, follow, end. Knows no HTTP, MQTT or database."""
