from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Property tests compare geometry, not speed: a slow machine is no failure.
hypothesis.settings.register_profile("default", deadline=None, max_examples=50)
hypothesis.settings.load_profile("default")


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder of real scenes; tests that need it skip without."""
    given = os.environ.get("PANCRAFTER_SCENES")
    root = Path(given) if given else Path(__file__).parents[2] / "shared" / "scenes"
    if not (root / "catalog.json").is_file():
        pytest.skip("the real scenes are not here; set PANCRAFTER_SCENES to their folder")
    return root
