"""`replit cache`: the compiled models that are kept on this machine, and their removal."""

from __future__ import annotations

import click


@click.command()
@click.option("--remove", is_flag=True, help="Remove all of them; each is compiled again when it is needed.")
@click.option("--remove-old", is_flag=True, help="Remove those that this version cannot load.")
def cache(remove: bool, remove_old: bool) -> None:
    """Show the compiled models that are kept, or remove them.

    Those of older kernels and of other versions of MAX go by themselves when a model is compiled.
    """
    from pipelines.terminal.report import visible
    from replit.runtime.compile_key import cache_folder
    from replit.runtime.compiled_cache import kept_models
    from weights.errors import UserError, reason

    if remove and remove_old:
        raise click.UsageError("--remove and --remove-old are both given; expected one of them")
    models = kept_models()
    for model in models:
        if remove or (remove_old and not model.current):
            try:
                model.path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"cannot remove {model.path}: {reason(error)}; expected a folder of yours") from None
            print(f"removed {model.path.name}")
        elif not remove_old:
            age = "" if model.current else ", of another version"
            print(visible(f"{model.path.name}  {model.size / 1e6:6.1f} MB  {model.what}{age}"))
    total = sum(model.size for model in models)
    if not remove and not remove_old:
        print(f"{len(models)} compiled models, {total / 1e6:.1f} MB, in {cache_folder()}")
