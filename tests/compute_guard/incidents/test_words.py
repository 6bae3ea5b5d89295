"""What is said in Chinese is said in Chinese: pages, notices and letters hold no English sentence."""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path

import pytest

import compute_guard
from compute_guard.incidents import notices, words
from compute_guard.incidents.incident import MITRE, State
from compute_guard.incidents.page import WORDS, render
from compute_guard.incidents.store import Incidents
from compute_guard.monitoring.monitor import replay
from compute_guard.response.actions import Actions
from compute_guard.response.responder import Responder
from compute_guard.routes import Letter, Route, email
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.sources.synthetic import Load, SyntheticSource

DETECTORS = Path(compute_guard.__file__).parent / "usage" / "detectors"
SENTENCE = re.compile(r"[A-Za-z][a-z]+(?:[ ,;:]+[A-Za-z]+){2,}")
"""Three words of English after one another."""


def shown(page: str) -> str:
    """What a reader of the page sees that is neither marked as English, nor a command or a name."""
    page = re.sub(r"<(style|head)\b.*?</\1>", "", page, flags=re.DOTALL)
    page = re.sub(r'<(span|td)\b[^>]*(lang="en"|class="mono")[^>]*>.*?</\1>', "", page)
    return html.unescape(re.sub(r"<[^>]+>", "\n", page))


def signals():
    """Every call of Signal(...) in the shipped detectors, with its file."""
    for file in sorted(DETECTORS.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Signal":
                yield file.name, {keyword.arg: keyword.value for keyword in node.keywords}


def test_every_signal_of_a_shipped_detector_is_worded_in_chinese_too():
    found = list(signals())
    assert len(found) >= 20
    assert [name for name, given in found if "message_zh" not in given] == []
    channels = {given["channel"].value for _, given in found if isinstance(given["channel"], ast.Constant)}
    assert channels <= set(words.CHANNELS)


def test_every_kind_has_its_name_and_what_is_expected_of_it_in_both_languages():
    assert set(MITRE) <= set(notices.KINDS)
    assert {f"expect_{kind}" for kind in notices.KINDS} <= set(WORDS)


@pytest.mark.parametrize(
    "table", ["SEVERITIES", "STATES", "CHANGES", "CHANNELS", "ACTIONS", "STEPS", "OUTCOMES"]
)
def test_every_word_has_a_chinese_one(table):
    for name, (english, chinese) in getattr(words, table).items():
        assert english, name
        assert re.search(r"[\u4e00-\u9fff]", chinese), name


def test_every_state_of_an_incident_has_a_word():
    assert set(words.STATES) == {state.value for state in State}


@pytest.fixture
def handled(still_home):
    """A found miner with two channels of evidence, steps of several outcomes, a confirmation and an end."""
    load = Load("idle-hold", node="n1", after="mining-capped", onset=5)
    book = LeaseBook.of([Lease(load.device.key, "acme", "job-1", entrypoint="stratum+tcp://pool.invalid:1")])
    (found,) = replay(still_home, SyntheticSource((load,), 25, seed=3), book, None).incidents
    who = still_home.principal()
    for level in (3, 4, 7):
        Responder(still_home, None, synthetic_may_act=True).act(found, level, principal=who)
    Incidents(still_home).acknowledge(found.id, who, confirm=True, note="")
    return Incidents(still_home).resolve(found.id, by=who, note="drill over")


def test_the_chinese_page_holds_no_english_sentence(still_home, handled):
    actions = Actions(still_home.storage, still_home.clock).of(handled.id)
    assert {"waiting", "blocked", "done"} & {action.state for action in actions}
    assert set(handled.channels) == {"telemetry", "indicator"}
    frame = SyntheticSource((Load("mining-capped", node="n1"),), 12, seed=1).read()
    page = render(handled, actions, frame, lang="zh")
    assert SENTENCE.findall(shown(page)) == []
    assert "批准人数不足" in page
    assert "演练结束" in page
    assert SENTENCE.findall(shown(render(handled, actions, frame, lang="en"))) != []


@pytest.mark.parametrize("audience", notices.AUDIENCES)
def test_the_chinese_notice_holds_no_english_sentence(still_home, handled, audience):
    steps = [a.to_json() for a in Actions(still_home.storage, still_home.clock).of(handled.id)]
    text = notices.render(audience, "zh", handled, steps, now=still_home.clock())
    commands = re.compile(r"`[^`]*`")
    assert SENTENCE.findall(commands.sub("", text)) == []


def test_the_chinese_letter_holds_no_english_sentence(still_home, handled):
    steps = tuple(a.to_json() for a in Actions(still_home.storage, still_home.clock).of(handled.id))
    letter = Letter(
        id="l1", what="grew", severity="incident", at=still_home.clock(), incident=handled, actions=steps
    )
    route = Route(name="desk", kind="email", host="h", sender="a@b", to=("c@d",), language="zh")
    body = email.message(letter, route).get_body().get_content()
    assert SENTENCE.findall(body.replace("trainguard incident show", "")) == []


def test_what_somebody_elses_detector_says_is_shown_as_it_is_written():
    channel = {"message": "the fans run backwards"}
    assert words.message(channel, "zh") == "the fans run backwards"
    assert words.channel_name("fans", "zh") == "fans"
    assert words.channel_name("dataset:acme/eval@3", "zh") == "数据集:acme/eval@3"
