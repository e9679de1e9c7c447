"""Posts to other systems about executions: queue, signature, retries."""
