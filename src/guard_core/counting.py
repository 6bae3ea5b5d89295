"""How many of something, in words. Its own module, because reading and checking load no command line."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 row``, ``2,000 rows``: for messages."""
    return f"{number:,} {noun_for(number, noun, plural)}"


def noun_for(number: int, noun: str, plural: str | None = None) -> str:
    """``row`` or ``rows``: where the number itself is not said."""
    return noun if number == 1 else plural or noun + "s"
