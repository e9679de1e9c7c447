"""Who an MQTT client is: device passwords, certificates, API tokens."""
