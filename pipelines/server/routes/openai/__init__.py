"""OpenAI's routes under /v1, with Mistral's fill-in-the-middle, and what vLLM's clients ask beside them."""
