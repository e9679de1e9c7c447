"""The journal and the registry in SQLite files, written by one thread."""
