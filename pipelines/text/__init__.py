"""From token ids to text that is certain, and where a completion ends. No model in here."""
