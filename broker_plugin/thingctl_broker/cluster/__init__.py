"""The core of one worker of several, over a link port and a store port. Knows no HTTP, MQTT or database."""
