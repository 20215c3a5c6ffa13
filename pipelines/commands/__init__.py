"""The command line: `cli` has its options, the others are its subcommands."""
