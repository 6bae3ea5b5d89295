"""Progress goes to stderr: a bar for people, few lines for logs, nothing for small tables."""

import io

from dataset_guard.commands.progress import shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def reported(stream, total, rows):
    with shown(stream) as show:
        for done in range(0, rows + 1, rows // 120):
            show("reading", done, total)
    return stream.getvalue()


def test_a_log_gets_at_most_ten_lines():
    lines = reported(io.StringIO(), 6_000_000, 6_000_000).splitlines()
    assert len(lines) == 10
    assert lines[0].endswith(" of 6,000,000 rows")


def test_a_log_gets_nothing_for_a_small_table():
    assert reported(io.StringIO(), 10_000, 10_000) == ""


def test_an_unknown_number_of_rows_is_told_by_the_million():
    lines = reported(io.StringIO(), None, 3_000_000).splitlines()
    assert lines == ["reading: 1,000,000 rows", "reading: 2,000,000 rows", "reading: 3,000,000 rows"]


def test_a_terminal_gets_a_bar_that_disappears():
    out = reported(Terminal(), 5_000_000, 5_000_000)
    assert "reading" in out
    assert "\x1b[2K" in out  # erased at the end
