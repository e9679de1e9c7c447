"""One command for many things: batches, rates, stop rules. Knows commands."""
