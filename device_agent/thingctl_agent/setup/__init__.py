"""The command line, the systemd service and the diagnostics: what its owner does with the agent."""
