"""The process that runs the model: its scheduler, its batch, and the messages to and from it."""
