"""Files of weights: GGUF, safetensors, directories; memory-mapped and checked."""
