"""An incident as one self-contained HTML page: the series, what was expected and seen, who decided what.

No script, no external address; a Content-Security-Policy allows only its one style sheet, by hash. Every
value is escaped by Jinja2, those in the drawings by ``Markup.format``: a job may be called anything.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from compute_guard.incidents import words
from compute_guard.incidents.incident import MITRE, Incident
from compute_guard.incidents.notices import KINDS
from compute_guard.response.actions import Action
from compute_guard.usage.samples import Frame, Ints
from guard_core.errors import UserError
from guard_core.version import __version__

WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "exercise": ("Exercise: this telemetry is made up.", "演练：以下监测数据为人工生成。"),
    "tenant": ("Tenant", "租户"),
    "job": ("Job", "作业"),
    "opened_at": ("Opened", "发现时间"),
    "score": ("Score", "评分"),
    "rules": ("Rules", "规则"),
    "devices": ("Devices", "加速卡"),
    "expected_seen": ("What was expected, what was seen", "预期与实际"),
    "expect_mining": (
        "Training and inference use tensor cores, move data and vary; a miner does none of these.",
        "训练与推理会使用张量核心、传输数据且负载有波动；挖矿负载三者皆无。",
    ),
    "expect_idle_hoard": (
        "Memory is held to compute with; held memory that computes nothing is given back.",
        "显存应当用于计算；长时间占用而不计算的显存应予释放。",
    ),
    "expect_unattributed_process": (
        "Every process on a device belongs to a job with a lease there, or to the platform.",
        "加速卡上的每个进程都应属于持有租约的作业或平台自身。",
    ),
    "expect_telemetry_contradiction": (
        "A device that computes nothing draws little power, stays cool and moves no data.",
        "未执行计算的加速卡应当功耗低、温度低且无数据活动。",
    ),
    "expect_over_quota": (
        "A job holds what it reserved, and a tenant no more than its queues may have.",
        "作业只占用其预留的算力，租户的占用不超过其队列额度。",
    ),
    "expect_regime_change": (
        "A running job goes on as it did, but for checkpoints and evaluations of some minutes.",
        "运行中的作业负载保持稳定，仅在检查点或评估时短暂变化。",
    ),
    "expect_memory_creep": (
        "After its start a job's memory stays about the same.",
        "作业启动后显存占用应大致稳定。",
    ),
    "expect_straggler": (
        "The devices of one job do the same work at the same speed.",
        "同一作业的各加速卡应以相同速度执行相同工作。",
    ),
    "expect_hang": (
        "A job that holds its devices computes on them.",
        "占用加速卡的作业应持续计算。",
    ),
    "expect_abnormal_export": (
        "A job that has read a dataset computes on it, and little leaves its node.",
        "读取数据集的作业应以其进行计算，且其节点外传数据量很小。",
    ),
    "expect_off_hours": (
        "This tenant's own record shows next to no submissions at such hours.",
        "该租户的历史记录显示其几乎不在此时段提交作业。",
    ),
    "expect_new_entrypoint": (
        "This tenant runs a few programs again and again.",
        "该租户长期只运行少数固定程序。",
    ),
    "expect_submission_burst": (
        "Submissions come no faster than in the tenant's busiest hour of the week.",
        "提交速度不应超过该租户一周内最繁忙的时段。",
    ),
    "expect_control_plane_abuse": (
        "Credentials work, policy is not probed, and workers run what the job was admitted with.",
        "凭据有效、策略不被反复试探，工作进程只运行准入时声明的命令。",
    ),
    "expect_sensor_integrity": (
        "Held devices report, through the operator's own driver library, and exporters agree.",
        "被占用的加速卡应通过运营方认可的驱动库持续上报，且各采集来源一致。",
    ),
    "expect_cross_tenant": (
        "A tenant's processes run on devices and nodes that the tenant was given.",
        "租户的进程只应运行在分配给该租户的加速卡和节点上。",
    ),
    "expect_atypical_load": (
        "The loads of this class of jobs on this model rest, vary and move memory as calibrated.",
        "同类作业在该型号加速卡上的负载应符合已校准的休止、波动与显存变化规律。",
    ),
    "expect_unusual_course": (
        "A tenant's use goes on as in earlier days and weeks, by level, shape and hour.",
        "租户的算力使用应与此前数日、数周的水平、走势和时段相符。",
    ),
    "expect_dataset_withdrawn": (
        "A running job reads datasets that policy lets it use, until it ends.",
        "作业运行期间所读取的数据集应始终为策略所允许。",
    ),
    "series": ("Time series", "时间序列"),
    "dashed": ("The dashed line is where the evidence sufficed. Drawn:", "虚线处证据已充分。图示加速卡："),
    "no_series": ("No telemetry was kept.", "未保存监测数据。"),
    "who_decided": ("What was done, and who decided it", "处置措施与决策"),
    "level": ("Level", "级别"),
    "step": ("Step", "措施"),
    "outcome": ("Outcome", "结果"),
    "when": ("When", "时间"),
    "why": ("Why", "依据"),
    "decision": ("Decision", "决策编号"),
    "approved_by": ("approved by", "批准人"),
    "playbook": ("authorised beforehand by playbook", "预先授权的预案"),
    "nothing": ("Nothing was done yet.", "尚未采取措施。"),
}
_CHARTS: Final[Mapping[str, tuple[float, float]]] = {
    # metric: divisor to the unit above, and the least upper end of its axis
    "util_percent": (1.0, 100.0),
    "power_w": (1.0, 100.0),
    "tensor_active": (1.0, 1.0),
    "memory_used_bytes": (2.0**30, 1.0),
    "pcie_bytes_per_s": (1e6, 1.0),
    "temperature_c": (1.0, 50.0),
}
_BOUNDED: Final = frozenset({"util_percent", "tensor_active"})  # the end of their axis is all there can be
_FIGURE = Markup(
    "<figure><figcaption><span>{name}</span><span>{range}</span></figcaption>"
    '<svg viewBox="0 0 760 92" role="img" aria-label="{label}"><rect class="frame" x="44" y="4" width="712" '
    'height="70" rx="4"/>{marks}<text class="tick" x="40" y="13" text-anchor="end">{top}</text>'
    '<text class="tick" x="40" y="74" text-anchor="end">0</text>'
    '<text class="tick" x="44" y="88">{start}</text>'
    '<text class="tick" x="756" y="88" text-anchor="end">{end}</text></svg></figure>'
)
_LINE = Markup('<polyline class="series" points="{points}"/>')
_FROM = Markup('<line class="from" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="74"/>')


def render(incident: Incident, actions: Sequence[Action], frame: Frame, *, lang: str = "en") -> str:
    """The page. ``frame`` is the incident's telemetry, of which the first device is drawn.

    Raises UserError for a language other than ``en`` and ``zh``.
    """
    if lang not in ("en", "zh"):
        raise UserError(f"incident pages are written in en and zh, not {lang!r}")
    number = ("en", "zh").index(lang)

    def word(name: str) -> str:
        return WORDS[name][number] if name in WORDS else ""

    def named(table: str, name: str) -> str:
        return words.said(getattr(words, table), name, lang)

    def reason(found: Mapping[str, str]) -> Markup:
        """Of the shipped policy in the page's language; anybody else's words as they are."""
        known = words.REASONS_ZH.get(found["rule"]) if lang == "zh" else found["msg"]
        return escape(known) if known else foreign(found["msg"])

    def foreign(text: str) -> Markup:
        """What was written in English, and may be read out as such."""
        return escape(text) if lang == "en" else Markup('<span lang="en">{}</span>').format(text)

    style = files("compute_guard").joinpath("templates", "incident.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        _environment()
        .get_template("incident.html.j2")
        .render(
            incident=incident,
            kind=KINDS.get(incident.kind, {}).get(lang, incident.kind),
            techniques=MITRE.get(incident.kind, ()),
            actions=actions,
            charts=_charts(incident, frame, lang),
            drawn=_drawn(incident, frame),
            t=word,
            named=named,
            cause=reason,
            foreign=foreign,
            note=lambda text: words.NOTES_ZH.get(text, text) if lang == "zh" else text,
            channel_name=lambda name: words.channel_name(name, lang),
            message=lambda channel: words.message(channel, lang),
            lang=lang,
            version=__version__,
            style=Markup(style),  # noqa: S704 - our own file
            csp=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        )
    )


def _charts(incident: Incident, frame: Frame, lang: str) -> list[Markup]:
    drawn = _drawn(incident, frame)
    if not drawn:
        return []
    rows = np.flatnonzero(frame.device == [device.key for device in frame.devices].index(drawn))
    rows = rows[np.argsort(frame.ts_ns[rows], kind="stable")]
    begun = incident.evidence.get("incident_since") or incident.evidence["first_seen"]
    since = datetime.fromisoformat(str(begun))
    charts = []
    for metric, (unit, least) in _CHARTS.items():
        values = np.asarray(frame.metric(metric)[rows], dtype=np.float64) / unit
        if np.isfinite(values).any():
            top = least if metric in _BOUNDED else max(least, float(np.nanmax(values)) * 1.05)
            name = words.said(words.METRICS, metric, lang)
            charts.append(_chart(name, frame.ts_ns[rows], values, top, since))
    return charts


def _drawn(incident: Incident, frame: Frame) -> str:
    """The device whose series are drawn; empty when no telemetry of the incident's was kept."""
    wanted = set(incident.evidence["devices"]) if len(frame) else set()
    return next((device.key for device in frame.devices if device.key in wanted), "")


def _chart(name: str, ts_ns: Ints, values: np.ndarray, top: float, since: datetime) -> Markup:
    """One series as a figure: values on a scale from 0, gaps left open, a dashed line where it began."""
    first, last = int(ts_ns[0]), int(ts_ns[-1])
    x = 44 + 712 * (ts_ns - first) / max(last - first, 1)
    y = 74 - 70 * np.clip(values / top, 0, 1)
    marks = Markup("")
    seen = np.isfinite(values)
    for part in np.split(np.arange(len(values)), np.flatnonzero(np.diff(seen.astype(np.int8))) + 1):
        if len(part) and seen[part[0]]:
            marks += _LINE.format(points=" ".join(f"{x[i]:.1f},{y[i]:.1f}" for i in part.tolist()))
    begun = int(since.timestamp() * 1e9)
    if first <= begun <= last:
        marks += _FROM.format(x=44 + 712 * (begun - first) / max(last - first, 1))
    return _FIGURE.format(
        name=name,
        range=f"{_short(float(np.nanmin(values)))} – {_short(float(np.nanmax(values)))}",
        label=f"{name}: {float(np.nanmin(values)):.1f} – {float(np.nanmax(values)):.1f}",
        marks=marks,
        top=_short(top),
        start=f"{datetime.fromtimestamp(first / 1e9, UTC):%Y-%m-%d %H:%M:%S}",
        end=f"{datetime.fromtimestamp(last / 1e9, UTC):%H:%M:%S} UTC",
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("compute_guard", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = lambda at: f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return environment
