"""A progress bar for a job on files: on a terminal only, and gone when the job is done."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def job_bar(title: str, total: int, show: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves a bar on standard error by so many of ``total`` files.

    Nothing is shown where standard error is no terminal or ``show`` is false.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    hidden = not (show and sys.stderr.isatty())
    with Progress(console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task = bar.add_task(escape(title), total=total)
        yield lambda files: bar.advance(task, files)
