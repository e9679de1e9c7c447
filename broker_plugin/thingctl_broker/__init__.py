"""The broker side of thingctl: an amqtt plugin, an HTTP API, a console and a CLI.

The cores (``executions``, ``table``, ``delivery``, ``things``) decide and are pure;
``service`` holds the use cases; ``mqtt``, ``http`` and ``cli`` speak to the world.
"""
