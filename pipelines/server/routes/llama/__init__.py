"""llama.cpp's routes: text (completion.py), and what its clients ask of the server beside it (server.py)."""
