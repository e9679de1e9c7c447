"""What the operating system gives: clock, files, paths, logs, addresses. Knows no commands."""
