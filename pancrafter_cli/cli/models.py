"""`pancrafter models`."""

from __future__ import annotations

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import print_json, print_rows
from pancrafter_cli.errors import ModelError, UsageError

EXAMPLES = """Examples:

pancrafter models

pancrafter models universal-small

pancrafter models --verify
"""


def command(
    name: str | None = typer.Argument(None, help="Show this model with its card."),
    verify: bool = typer.Option(False, "--verify", help="Check every weights file against its published hash."),
    as_json: opt.AsJson = False,
) -> None:
    """List the shipped models, show one, or verify their hashes."""
    from pancrafter_cli.zoo import damaged_models, list_models

    entries = [e for e in list_models() if name is None or e.path.parent.name == name]
    if name is not None and not entries:
        known = ", ".join(e.path.parent.name for e in list_models())
        raise UsageError(f"unknown model '{name}'", f"shipped models: {known or 'none'}")
    if as_json:
        print_json(entries)
    elif name is not None:
        entry = entries[0]
        print_rows(
            [
                ("name", entry.spec.name),
                ("sensor", entry.spec.sensor),
                ("bands", f"{entry.spec.bands} at once; other counts in groups"),
                ("ratios", f"{entry.spec.ratios[0]:g} to {entry.spec.ratios[1]:g}"),
                ("file", f"{entry.path} ({entry.bytes / 1e6:.1f} MB)"),
                ("sha256", entry.sha256),
                ("intact", "yes" if entry.intact else "NO"),
                ("licence", entry.spec.licence),
            ]
        )
        card = entry.path.with_name("README.md")
        if card.is_file():
            print()
            print(card.read_text(encoding="utf-8").rstrip())
    else:
        for entry in entries:
            state = "" if entry.intact else "  DAMAGED"
            print(
                f"{entry.path.parent.name:<24} {entry.spec.bands} bands  sensor {entry.spec.sensor:<8} "
                f"ratio {entry.spec.ratios[0]:g}-{entry.spec.ratios[1]:g}  {entry.bytes / 1e6:.1f} MB{state}"
            )
    damaged = damaged_models()
    if damaged and (verify or name in damaged):
        raise ModelError(f"not the published weights: {', '.join(damaged)}", "install the package again")
    if verify and not as_json:
        print(f"{len(entries)} models, all intact")
