"""Tokens, passwords, certificates, rate limits: who calls, and may they. Knows no command and no thing."""
