"""Libraries that only some installations have."""

from __future__ import annotations

import importlib

from pancrafter_cli.errors import InstallError


def require(*libraries: str, hint: str) -> None:
    """Raise InstallError with the hint, how to install them, when one of the libraries cannot be loaded."""
    for library in libraries:
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise InstallError(f"this needs {library}, which cannot be loaded here: {error}", hint) from error
