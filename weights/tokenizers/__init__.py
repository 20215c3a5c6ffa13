"""From text to token ids and back, for each kind of tokenizer that a file can hold."""
