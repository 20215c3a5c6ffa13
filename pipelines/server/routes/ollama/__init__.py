"""Ollama's routes under /api: text (generate.py), and what its clients ask of the server beside it (server.py)."""
