"""MQTT: the server that devices connect to, amqtt as its host, and the link to a cluster."""
