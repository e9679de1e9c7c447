"""The loop, sockets, threads and files of a running agent. Carries out what the core decides."""
