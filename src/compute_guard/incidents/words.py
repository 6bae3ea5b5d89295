"""The words of incidents in English and Simplified Chinese: pages, notices and letters take them from here.

One table per kind of thing, each entry ``(English, Chinese)``, so that a term is translated once. What a
detector says about one device is in the detector (``Signal.message`` and ``message_zh``); what policy or an
operator wrote is shown as written, and marked as being in another language.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

LANGUAGES: Final = ("en", "zh")
Words = Mapping[str, tuple[str, str]]

SEVERITIES: Final[Words] = {
    "info": ("note", "提示"),
    "warning": ("warning", "预警"),
    "incident": ("incident", "事件"),
}
STATES: Final[Words] = {
    "open": ("open", "待处理"),
    "acknowledged": ("acknowledged", "已确认"),
    "contained": ("contained", "已控制"),
    "resolved": ("resolved", "已解决"),
}
CHANGES: Final[Words] = {
    "opened": ("opened", "新建"),
    "grew": ("more evidence", "证据增加"),
    "confirmed": ("confirmed", "人工确认"),
    "sent": ("notice sent", "通知已发出"),
    **STATES,
}
"""What may happen to an incident, as its history and its letters name it."""

CHANNELS: Final[Words] = {
    "telemetry": ("telemetry", "监测数据"),
    "indicator": ("indicator", "已知特征"),
    "calibration": ("calibration", "校准基线"),
    "power": ("power", "功耗"),
    "energy": ("energy", "能耗计数"),
    "activity": ("activity", "计算单元活动"),
    "temperature": ("temperature", "温度"),
    "process": ("process", "进程"),
    "pool": ("pool", "节点池"),
    "reservation": ("reservation", "预留"),
    "limit": ("limit", "上限"),
    "allowance": ("allowance", "当日额度"),
    "forecast": ("forecast", "趋势预测"),
    "egress": ("egress", "外传流量"),
    "calendar": ("calendar", "时段"),
    "rarity": ("rarity", "罕见程度"),
    "rate": ("rate", "提交频率"),
    "authentication": ("authentication", "身份认证"),
    "denied": ("denied", "策略拒绝"),
    "unadmitted": ("unadmitted", "未经准入"),
    "shell": ("shell", "命令行"),
    "library": ("library", "驱动库"),
    "gap": ("gap", "采集中断"),
    "source": ("source", "采集来源"),
    "dataset": ("dataset", "数据集"),
    "course": ("course of use", "用量走势"),
}
"""Sources of evidence. One of somebody else's detector is shown by its name."""

METRICS: Final[Words] = {
    "util_percent": ("Utilisation, %", "利用率（%）"),
    "power_w": ("Power, W", "功耗（W）"),
    "tensor_active": ("Tensor cores active, share", "张量核心活跃度"),
    "dram_active": ("Memory active, share", "显存带宽活跃度"),
    "memory_used_bytes": ("Memory, GiB", "显存（GiB）"),
    "pcie_bytes_per_s": ("PCIe, MB/s", "PCIe（MB/s）"),
    "temperature_c": ("Temperature, °C", "温度（°C）"),
}
ACTIONS: Final[Words] = {
    "record": ("recorded", "已记录"),
    "notify": ("owner notified", "已通知责任人"),
    "acknowledge": ("acknowledgement requested", "已要求确认"),
    "throttle": ("priority lowered", "已降低优先级"),
    "suspend": ("queue suspended", "已暂停队列"),
    "stop": ("job stopped", "已停止作业"),
    "quarantine": ("tenant quarantined", "已隔离租户"),
    "cordon": ("node cordoned", "已封锁节点"),
}
"""Steps that were taken."""

STEPS: Final[Words] = {
    "record": ("record", "记录"),
    "notify": ("notify", "通知"),
    "acknowledge": ("acknowledge", "要求确认"),
    "throttle": ("throttle", "降低优先级"),
    "suspend": ("suspend", "暂停队列"),
    "stop": ("stop", "停止作业"),
    "quarantine": ("quarantine", "隔离租户"),
    "cordon": ("cordon", "封锁节点"),
}
"""Steps of the ladder by name, taken or not."""

OUTCOMES: Final[Words] = {
    "requested": ("requested", "已提出"),
    "waiting": ("waiting", "等待审批"),
    "denied": ("denied", "未获批准"),
    "blocked": ("blocked", "已阻止"),
    "executing": ("executing", "执行中"),
    "done": ("done", "已完成"),
    "failed": ("failed", "失败"),
    "undoing": ("undoing", "撤销中"),
    "undone": ("undone", "已撤销"),
    "expired": ("expired", "到期撤销"),
    "dry-run": ("dry-run", "演算"),
}
"""States of a step."""

REASONS_ZH: Final[Mapping[str, str]] = {
    "action-incomplete": "请求未完整说明措施、事件及影响范围",
    "not-a-responder": "请求人无权执行处置措施",
    "target-mismatch": "措施对象与事件所属租户不一致",
    "target-missing": "封锁节点须指明节点",
    "severity-too-low": "该级别的措施须以“事件”为依据，预警不足以执行",
    "kill-switch": "处置总开关已停用三级及以上措施",
    "approvals-missing": "批准人数不足",
    "blast-actions": "已达每小时措施次数上限",
    "blast-tenants": "受影响租户数将超过上限",
    "synthetic-evidence": "人工生成的监测数据只能作用于演练租户",
    "undecided": "策略未能作出判定",
}
"""Why a step was not taken, by the rule of the shipped policy that says so."""


NOTES_ZH: Final[Mapping[str, str]] = {"no longer observed": "不再观察到", "drill over": "演练结束"}
"""What the product itself notes when it closes an incident; people's notes are shown as written."""


def said(words: Words, name: str, lang: str) -> str:
    """``name`` in ``lang``; a name that is not in the table is shown as it is."""
    return words[name][LANGUAGES.index(lang)] if name in words else name


def message(channel: Mapping[str, Any], lang: str) -> str:
    """What a channel of an incident's evidence says; in English where its detector has no Chinese."""
    return str(channel.get("message_zh") or channel["message"] if lang == "zh" else channel["message"])


def channel_name(name: str, lang: str) -> str:
    """A source of evidence; one about a thing (``dataset:acme/eval@3``) keeps the thing's name."""
    kind, colon, thing = name.partition(":")
    return said(CHANNELS, kind, lang) + colon + thing
