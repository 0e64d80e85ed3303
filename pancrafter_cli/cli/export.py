"""`pancrafter export`."""

from __future__ import annotations

from pathlib import Path

import typer

from pancrafter_cli.cli import options as opt
from pancrafter_cli.cli.output import print_json

EXAMPLES = """Examples:

pancrafter export -o universal-small.onnx

pancrafter export runs/mine/model.safetensors -o mine.onnx --overwrite
"""


def command(
    model: str = typer.Argument(opt.DEFAULT_MODEL, help=opt.MODEL_HELP),
    output: Path = typer.Option(..., "-o", "--output", help="ONNX file to write."),
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Write a model as ONNX, for `sharpen --model FILE.onnx` without torch; compared with torch before it is kept."""
    from pancrafter_cli.runtime.installed import require

    require("torch", "onnx", "onnxruntime", hint="pip install 'pancrafter[export]'")
    from pancrafter_cli.tasks.export import ExportOptions, export_model

    result = export_model(ExportOptions(output, model, overwrite))
    if as_json:
        print_json(result)
        return
    print(
        f"{result.output}: model {result.model}, opset {result.opset}, {result.bytes / 1e6:.1f} MB; differs from torch "
        f"by at most {result.difference:.2g} of the scale in {result.cases} sizes"
    )
