"""Writes docs/cli.md from the command line's own help; tests/test_docs.py holds the two together."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.commands.cli import replit

TARGET = Path(__file__).parent / "cli.md"


def cli_page() -> str:
    """The help of `replit` and of every subcommand, as Markdown."""
    parts = ["# Command line", "", "Made by `python -m docs.generate` from `--help`.", ""]
    context = click.Context(replit, info_name="replit", max_content_width=100, terminal_width=100)
    parts += ["## replit", "", "```", replit.get_help(context), "```", ""]
    for name in replit.list_commands(context):
        command = replit.get_command(context, name)
        assert command is not None
        child = click.Context(command, info_name=name, parent=context, max_content_width=100, terminal_width=100)
        parts += [f"## replit {name}", "", "```", command.get_help(child), "```", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(cli_page())
