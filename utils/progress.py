"""Progress bars: lively in a terminal, a line now and then in a log."""

import sys
from typing import Any

from tqdm import tqdm


def progress(**options: Any) -> tqdm:
    """A tqdm bar; where stderr is no terminal it writes a line every 20 seconds instead of ten a second."""
    lively = sys.stderr.isatty()
    return tqdm(mininterval=0.1 if lively else 20.0, maxinterval=10.0 if lively else 60.0, **options)
