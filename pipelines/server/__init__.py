"""The HTTP server of `replit --serve` (extra `serve`).

serve.py starts both processes. HTTP: app.py (routes, admission) over service.py and worker_process.py; the interfaces
are completions.py, chat.py and llama.py. The model: worker.py and batch.py. messages.py is what they tell each other.
offline/ answers files of requests (`replit batch`) by the same routes.
"""
