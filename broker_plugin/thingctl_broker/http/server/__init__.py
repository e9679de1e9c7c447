"""The HTTP server: uvicorn's protocol with limits, and the fast path of POST."""
