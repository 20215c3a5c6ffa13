"""One sequence's life: the token loop and sampling. Logits come in, token ids go out."""
