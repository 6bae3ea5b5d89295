"""Telling a dead raylet from one that is only not answering."""

from __future__ import annotations

import asyncio
import socket

from compute_guard.ray_plugin.gates.lost import SILENT_SECONDS, Silence, is_closed


def test_a_port_is_closed_only_when_the_machine_says_so():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert asyncio.run(is_closed("127.0.0.1", port))  # bound, and nobody listens
        listener.listen()
        assert not asyncio.run(is_closed("127.0.0.1", port))


def test_a_gate_is_silent_after_a_while_and_is_told_again_after_as_long():
    silence = Silence()
    assert silence.of(["a", "b"], ["a"], 10.0) == []
    assert silence.of(["a", "b"], ["a"], 10.0 + SILENT_SECONDS) == ["b"]
    assert silence.of(["a", "b"], ["a"], 10.1 + SILENT_SECONDS) == []
    assert silence.of(["a", "b"], ["a"], 10.0 + 2 * SILENT_SECONDS) == ["b"]


def test_who_is_back_on_the_line_begins_anew():
    silence = Silence()
    silence.of(["a"], [], 0.0)
    silence.of(["a"], ["a"], SILENT_SECONDS)
    assert silence.of(["a"], [], SILENT_SECONDS + 1) == []
