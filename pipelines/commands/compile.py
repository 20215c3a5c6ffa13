"""`replit compile`: a serialized model for a GPU that this machine need not have, or for its own CPU.

Imports only click at the top: the command line loads this module to print its help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipelines.terminal.options import PathText, shared

if TYPE_CHECKING:
    from replit.runtime.target import Target


@click.command("compile")
@shared("model", "weight_path", "config_path", "tokenizer_path", "quantization_encoding", "kv_cache_encoding")
@click.option("--target", default="cpu", show_default=True, metavar="TARGET", help="cpu, or a GPU such as cuda:sm_90.")
@click.option("--mmap", is_flag=True, help="For weights that stay mapped from their file, on a CPU.")
@click.option(
    "--save-to-serialized-model-path", "path", required=True, type=PathText(), metavar="PATH", help="The file to write."
)
@click.option("--quiet", is_flag=True, help="No progress.")
def compile_model(model: str, path: str, target: str, quiet: bool, **options: Any) -> None:
    """Compile a model and write it to a file, for --serialized-model-path on another machine.

    For a GPU no GPU is needed here: sm_80 is an A100, sm_90 an H100 or H200, sm_100 a B200. A file for a CPU is for
    this machine's.
    """
    from dataclasses import replace
    from pathlib import Path

    from pipelines.pipeline import cache_encoding, gpu_encoding
    from pipelines.registry import open_model, parse_encoding
    from pipelines.terminal.progress import Quiet, Terminal
    from replit.runtime.compile import CompileOptions
    from replit.runtime.compile import compile_model as compiled
    from replit.runtime.target import parse_target
    from replit.runtime.weight_memory import weight_types
    from weights.errors import UserError

    chosen = parse_target(target)
    chosen = replace(chosen, cache=cache_encoding(options["kv_cache_encoding"], chosen))
    if options["mmap"]:
        if not chosen.panels:
            raise UserError(f"--mmap is given with --target {target}; expected it with cpu: leave it out")
        chosen = replace(chosen, panels=False)
    encoding = parse_encoding(options["quantization_encoding"])
    files = open_model(model, options["weight_path"], encoding, options["config_path"], options["tokenizer_path"])
    types = weight_types(files.tensors, encoding if chosen.own_kernels else gpu_encoding(encoding, chosen))
    start_engine(chosen)
    progress = Quiet() if quiet else Terminal()
    compiled(files.config, types, CompileOptions(save_to=Path(path)), progress, files.architecture, chosen)


def start_engine(target: Target) -> None:
    """Starts this process's engine for `target`, whose GPU is made up; it can only compile then."""
    from replit.runtime.engine import Engine

    if not target.on_gpu:
        Engine.get()
        return
    from max import driver

    driver.set_virtual_device_api("cuda")
    driver.set_virtual_device_target_arch(target.architecture)
    driver.set_virtual_device_count(1)
    Engine.get(device=driver.Accelerator())
