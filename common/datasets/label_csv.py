"""Files of ``id,label``: the competition's labels and what is submitted to it."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from common.datasets.ids import in_order, is_file_name
from common.errors import listed, printable

HEADER = ("id", "label")


class LabelFile(NamedTuple):
    """What a csv holds, and each thing that is wrong with it as a line with its way out."""

    header: tuple[str, ...]
    labels: dict[str, str]  # {id: label}, in the order of the rows
    problems: list[str]
    padded: tuple[str, ...] = ()  # ids of the rows with blanks around a field, left out above


def read_label_file(path: Path, way_out: str) -> LabelFile:
    """Read rows ``id,label`` below a header line; blank lines do not count. Raises nothing.

    A problem is a file that is missing, unreadable or without labels (``way_out`` says what to do),
    rows of another form, names that cannot be a file's, ids that come twice, and a missing header.
    """
    labels: dict[str, str] = {}
    twice: list[str] = []
    malformed: list[str] = []
    padded: list[str] = []
    header: tuple[str, ...] = ()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # some editors put a mark first
            rows = csv.reader(file)
            header = tuple(field.strip() for field in next(rows, []))
            for number, row in enumerate(rows, start=2):
                fields = [field.strip() for field in row]
                if len(fields) == 2 and is_file_name(fields[0]) and is_file_name(fields[1]):
                    if fields[0] in labels:
                        twice.append(fields[0])
                    if fields != row:
                        padded.append(fields[0])
                    labels[fields[0]] = fields[1]
                elif any(fields):
                    malformed.append(f"row {number} '{printable(','.join(row), 60)}'")
    except FileNotFoundError:
        return LabelFile((), {}, [f"there is no {path}: {way_out}"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        return LabelFile((), {}, [f"cannot read {path} as a csv ({reason}): {way_out}"])
    problems = list(_problems(path, header, labels, malformed, twice))
    if not labels and not malformed:
        problems.append(f"{path} has no labels: {way_out}")
    return LabelFile(header, labels, problems, tuple(padded))


def _problems(
    path: Path,
    header: tuple[str, ...],
    labels: dict[str, str],
    malformed: list[str],
    twice: list[str],
) -> Iterator[str]:
    if labels and (header[:1] == () or header[0].isdecimal()):
        yield f"{path} begins with '{','.join(header)}': put the header id,label above it"
    if malformed:
        yield f"{path} has rows of another form than id,label: {listed(malformed)}; correct them"
    if twice:
        yield f"{path} has ids that come twice, {listed(in_order(twice))}: keep one row of each"


def as_csv(rows: Iterable[tuple[str, str]]) -> bytes:
    """Return rows ``id,label`` below that header, in UTF-8; lines end as on Unix."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(rows)
    return file.getvalue().encode("utf-8", "surrogateescape")  # the bytes of any file's name
