"""How many examples of a batch each device gets."""


def part_sizes(n: int, parts: int) -> list[int]:
    """Return ``parts`` sizes that add up to ``n``, as even as can be, the larger ones first."""
    size, larger = divmod(n, parts)
    return [size + (i < larger) for i in range(parts)]
