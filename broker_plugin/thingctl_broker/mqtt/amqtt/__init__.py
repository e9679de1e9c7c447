"""The bridge to amqtt's broker, which carries ordinary topics. The only room that knows amqtt's internals."""
