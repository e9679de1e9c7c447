"""The MQTT server: connections, sessions, limits and the fast path of responses."""
