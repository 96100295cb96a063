"""Public data sets of long videos, read from their own folders and spreadsheets.

    sources = read("samm-lv", Path("SAMM"))
    for source in sources:
        recording = watch(source.frames(), config, source.truth, source.name, source.subject)

Frame numbers become media time by the set's own rate. Whatever does not fit is reported with file, row and column, all
of it at once (`DatasetError`).
"""

from tools.evaluate.datasets.layouts import LAYOUTS
from tools.evaluate.datasets.mistakes import DatasetError
from tools.evaluate.datasets.reading import read
from tools.evaluate.datasets.source import Source
from tools.evaluate.datasets.submission import write_submission

__all__ = ["LAYOUTS", "DatasetError", "Source", "read", "write_submission"]
