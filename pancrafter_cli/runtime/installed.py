"""Libraries that only some installations have."""

from __future__ import annotations

import importlib

from pancrafter_cli.errors import InstallError

_EXTRAS = {
    "torch": "pip install 'pancrafter[torch]', or run an exported model with --runtime onnx",
    "onnxruntime": "pip install 'pancrafter[onnx]', or leave out --runtime onnx",
    "onnx": "pip install 'pancrafter[export]'",
}


def require(*libraries: str) -> None:
    """Raise InstallError, with the command that installs it, when one of the libraries cannot be loaded."""
    for library in libraries:
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise InstallError(f"{library} is needed and cannot be loaded here: {error}", _EXTRAS[library]) from error
