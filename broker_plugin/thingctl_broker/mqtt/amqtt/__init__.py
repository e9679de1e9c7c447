"""amqtt as the host: its plugins, its in-process API, its own listeners. The only room that knows amqtt."""
