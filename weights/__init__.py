"""Model files: GGUF, safetensors, hub downloads and tokenizers. Knows no MAX and no architecture."""
