"""Self-contained HTML pages: one file, no script, no external address, nothing from the network.

The page carries a Content-Security-Policy that forbids everything except its one style sheet, which is
allowed by its SHA-256 (CSP Level 2, ``style-src 'sha256-…'``). So the file is safe to open from a mail, an
MLflow artifact or a web console, and nothing in a dataset's names can become code: Jinja2 escapes every
value, and what would slip through could not run.

English and Chinese are both in the page; two radio buttons choose without any script.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from guard_core.errors import UserError
from guard_core.files import write_atomic
from guard_core.output import dataset_page, figures, validation_page
from guard_core.output.words import LANGUAGES, PHRASES
from guard_core.version import __version__

_TAGS = {"en": "en", "zh": "zh-Hans"}
_REPLAY_KINDS = {
    "allow->deny": "critical",
    "allow->hold": "critical",
    "error": "critical",
    "undecidable": "warning",
    "deny->allow": "warning",
    "hold->allow": "warning",
    "verdict": "warning",
}
_BOTH = Markup('<span class="t" lang="en">{en}</span><span class="t" lang="zh-Hans">{zh}</span>')


def render(report: Mapping[str, Any], *, lang: str = "en") -> str:
    """The HTML page of a JSON document.

    A dataset report (``Report.document()``, or the shorter ``Report.to_json()``) gets the dataset page, any
    other mapping a plain page of its fields. ``lang`` (``en`` or ``zh``) is shown first.

    Raises UserError for another language.
    """
    if lang not in LANGUAGES:
        raise UserError(f"reports are written in {' and '.join(LANGUAGES)}, not {lang!r}: use one of these.")
    if dataset_page.is_dataset_report(report):
        return _page("dataset_report.html.j2", lang, r=dataset_page.view(report))
    return _page("generic.html.j2", lang, report=report)


def render_versions(versions: Sequence[Mapping[str, Any]], *, base: str, lang: str = "en") -> str:
    """A page that lists registered versions (tenant, name, version, verdict, rows, created_at).

    Each links to ``<base><tenant>/<name>/<version>``.
    """
    return _page("versions.html.j2", lang, versions=versions, base=base)


def render_validation(validation: Mapping[str, Any], *, lang: str = "en") -> str:
    """The page of a suite's result (``Validation.document()``): what was expected of each column, and met."""
    return _page("validation.html.j2", lang, v=validation_page.view(validation))


def render_replay(replay: Mapping[str, Any], *, lang: str = "en", most: int = 200) -> str:
    """The page of a policy replay (``Replay.to_json()``): outcomes, and the ``most`` largest changes."""
    parts = list(replay["classes"].items())
    return _page(
        "policy_replay.html.j2",
        lang,
        r=replay,
        parts=parts,
        colours=[_colour(name) for name, _ in parts],
        changed=sum(count for name, count in parts if name != "unchanged"),
        shown=replay["changes"][:most],
        kinds=_REPLAY_KINDS,
    )


def _colour(outcome: str) -> str:
    """The CSS class of an outcome in the chart: the colour of its label in the table, grey for unchanged."""
    return "series7" if outcome == "unchanged" else f"mark {_REPLAY_KINDS.get(outcome, 'info')}"


def _page(template: str, lang: str, **values: Any) -> str:
    environment = _environment()
    style = environment.get_template("style.css.j2").render()
    return environment.get_template(template).render(
        **values,
        lang=lang,
        lang_tag=_TAGS[lang],
        style=Markup(style),  # noqa: S704 - our own file
        csp=_policy(style),
    )


def write(path: Path, text: str) -> Path:
    """Write ``text`` to ``path`` atomically (temporary file, fsync, rename) and return ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.encode())
    return path


def phrase(name: str, **values: Any) -> Markup:
    """Both languages of a phrase, each in a span with its ``lang``; ``values`` are escaped.

    Raises KeyError for an unknown phrase: a page with a hole in it must not be written.
    """
    found = PHRASES[name]
    both = {tongue: Markup(text).format(**values) for tongue, text in found._asdict().items()}  # noqa: S704 - our own phrases
    return _BOTH.format(**both)


def both(en: str, zh: str | None) -> Markup:
    """A finding's words in both languages, escaped; in English alone where nobody translated them."""
    return Markup('<span lang="en">{}</span>').format(en) if zh is None else _BOTH.format(en=en, zh=zh)


def spoken(name: str, lang: str, **values: Any) -> str:
    """One language of a phrase as plain text, for titles and labels, where markup cannot go."""
    text: str = getattr(PHRASES[name], lang).format(**values)
    return re.sub(r"<[^>]+>", "", text)


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("guard_core.output", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(t=phrase, both=both, say=spoken, figures=figures, version=__version__)
    environment.filters["grouped"] = lambda number: f"{number:,}"
    return environment
