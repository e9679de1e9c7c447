"""MQTT packets as bytes. Pure: no socket, clock or loop."""
