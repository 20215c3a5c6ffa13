"""What commands share: options, progress, and how errors reach a person."""
