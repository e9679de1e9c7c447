"""The registry of devices, their types and schemas. Pure but for its service; knows no commands."""
