"""From a place in code, or a chat, to the token ids that a model reads."""
