"""Model files: GGUF, safetensors, hub, tokenizers. Knows no MAX and no architecture."""
