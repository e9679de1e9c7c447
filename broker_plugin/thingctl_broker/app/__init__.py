"""Settings and composition: puts a broker or a worker together and runs it."""
