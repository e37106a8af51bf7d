"""The engine over HTTP: one FastAPI application, and the server that runs it."""
