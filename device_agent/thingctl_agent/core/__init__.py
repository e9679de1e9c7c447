"""The rules of the agent: sessions, verdicts, recovery. Pure: no clock, socket, thread or logger."""
