"""MQTT: the front that meets every device, and amqtt behind it. The only folder that speaks amqtt."""
