"""Notices about an incident, from templates, in Chinese and English: to the customer and to the regulator.

Facts come from the incident and its actions only; a notice never holds telemetry, commands or data. It is a
draft until a person releases it. A notice about made-up telemetry says in its first line that it is an
exercise. Names that users choose (jobs, tenants) are made harmless before they are set into text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from compute_guard.incidents.incident import MITRE, Incident
from compute_guard.incidents.words import ACTIONS, LANGUAGES, SEVERITIES, STATES, channel_name, said
from guard_core.clock import rfc3339
from guard_core.errors import UserError

AUDIENCES: Final = ("customer", "regulator")
DEADLINE_HOURS: Final[Mapping[str, int]] = {"customer": 24, "regulator": 24}
"""Hours from opening within which a notice must leave, unless ``usage.notices`` in policy data says other."""

KINDS: Final[Mapping[str, Mapping[str, str]]] = {
    "mining": {"en": "suspected cryptocurrency mining", "zh": "疑似加密货币挖矿"},
    "idle_hoard": {"en": "accelerator memory held without computing", "zh": "长时间占用算力而未计算"},
    "unattributed_process": {
        "en": "a process without authorisation on an accelerator",
        "zh": "加速卡上存在未授权进程",
    },
    "telemetry_contradiction": {
        "en": "telemetry that contradicts itself (possible falsification)",
        "zh": "监测数据自相矛盾（可能被篡改）",
    },
    "over_quota": {"en": "more accelerators in use than granted", "zh": "实际占用算力超出授权额度"},
    "regime_change": {
        "en": "a lasting change in the load of a running job",
        "zh": "运行中作业的负载持续突变",
    },
    "memory_creep": {"en": "accelerator memory that is running out", "zh": "显存持续增长即将耗尽"},
    "straggler": {"en": "one device of a job falls behind", "zh": "作业中个别加速卡明显落后"},
    "hang": {"en": "a job that has stopped computing", "zh": "作业停滞不再计算"},
    "abnormal_export": {
        "en": "data leaving a node after a dataset was read, with idle accelerators",
        "zh": "读取数据集后算力闲置而大量数据外传",
    },
    "off_hours": {"en": "a submission outside the tenant's usual hours", "zh": "在非惯常时段提交作业"},
    "new_entrypoint": {"en": "a program the tenant has never run", "zh": "运行从未使用过的程序"},
    "submission_burst": {"en": "an unusual burst of submissions", "zh": "短时间内异常大量提交作业"},
    "control_plane_abuse": {
        "en": "attempts on the control plane, or commands a job was not admitted with",
        "zh": "控制面异常访问或执行未经准入的命令",
    },
    "sensor_integrity": {
        "en": "monitoring readings that cannot be trusted",
        "zh": "监测读数不可信（驱动库被替换或采集中断）",
    },
    "cross_tenant": {"en": "use of another tenant's accelerators", "zh": "越权使用其他租户的算力"},
    "dataset_withdrawn": {
        "en": "a running job whose dataset may no longer be used",
        "zh": "运行中作业所用的数据集已不允许使用",
    },
    "atypical_load": {
        "en": "a load that jobs of its class do not show",
        "zh": "与同类作业显著不同的负载特征",
    },
    "unusual_course": {
        "en": "a course of the tenant's use that was never seen before",
        "zh": "租户算力使用走势前所未见",
    },
}


def render(
    audience: str,
    language: str,
    incident: Incident,
    actions: Sequence[Mapping[str, Any]] = (),
    *,
    deadline_hours: Mapping[str, int] = DEADLINE_HOURS,
    now: datetime,
) -> str:
    """The notice as Markdown text. ``actions`` are those of the incident (``ActionRow`` as JSON).

    Raises UserError for another audience or language.
    """
    if audience not in AUDIENCES or language not in LANGUAGES:
        raise UserError(
            f"there is no notice for {audience!r} in {language!r}; "
            f"audiences are {', '.join(AUDIENCES)}, languages {', '.join(LANGUAGES)}"
        )
    done = [action for action in actions if action["state"] in ("done", "undone", "expired")]
    return (
        _environment()
        .get_template(f"{audience}.{language}.md.j2")
        .render(
            incident=incident,
            kind=KINDS.get(incident.kind, {}).get(language, incident.kind),
            actions=[{**a, "words": said(ACTIONS, a["action"], language)} for a in done],
            channels=[channel_name(name, language) for name in incident.channels],
            severity=said(SEVERITIES, incident.severity, language),
            state=said(STATES, incident.state.value, language),
            techniques=MITRE.get(incident.kind, ()),
            deadline=rfc3339(incident.opened_at + timedelta(hours=deadline_hours[audience])),
            now=rfc3339(now),
        )
    )


def plain(text: object, limit: int = 120) -> str:
    """``text`` as one line without anything Markdown or HTML would act on, at most ``limit`` characters."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+", " ", str(text))
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()!|~]|#(?!\d+;))", r"\\\1", line)


@cache
def _environment() -> Environment:
    # Markdown, not HTML: `plain` does the escaping, and every value of a user goes through it.
    environment = Environment(
        loader=PackageLoader("compute_guard", "incidents/notices"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    environment.filters["plain"] = plain
    environment.filters["moment"] = rfc3339
    return environment
