"""An error in one line if memory runs out, on the CPU or on a GPU."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import UserError, printable

# The frameworks, CUDA's libraries, and the host's allocators in their own words.
OUT_OF_MEMORY = re.compile(
    r"out of memory|(can't|cannot) allocate memory|OOM when allocating|_ALLOC_FAILED"
    r"|failed to allocate (cpu |gpu )?memory|unable to allocate"
    r"|bad_alloc|can't start new thread|failed to map segment",  # a limit of the address space
    re.IGNORECASE,
)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn an error because memory ran out into a UserError, with the framework's own line about it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = str(error).splitlines()
        found = next((line for line in lines if OUT_OF_MEMORY.search(line)), "")
        if not found and not isinstance(error, MemoryError):
            raise
        why = f" ({printable(found.strip(), 300)})" if found else ""
        raise UserError(
            f"memory ran out{why}: use a smaller --batch-size or --image-size, --precision bf16, fewer images, "
            "or another --device"
        ) from error
