"""The words of reports and notices, in English and Simplified Chinese.

One table, so that a term is translated once: ``quarantine`` is 隔离 wherever it is said. Values may hold
``{placeholders}``; placeholders are escaped when a phrase is put into HTML. Phrases are our own text and
may hold ``<code>``; nothing from a dataset is ever a phrase.
"""

from __future__ import annotations

from typing import NamedTuple

LANGUAGES = ("en", "zh")
"""Languages every phrase has. ``zh`` is marked ``zh-Hans`` in HTML."""


class Phrase(NamedTuple):
    """One phrase in every language."""

    en: str
    zh: str


PHRASES: dict[str, Phrase] = {
    # verdicts
    "verdict.allow": Phrase("Allowed", "允许使用"),
    "verdict.warn": Phrase("Allowed with warnings", "允许使用（有警告）"),
    "verdict.quarantine": Phrase("Quarantined", "已隔离"),
    "verdict.deny": Phrase("Refused", "已拒绝"),
    "means.allow": Phrase(
        "Nothing here stands against training on this version.", "没有发现阻止用该版本训练的问题。"
    ),
    "means.warn": Phrase(
        "It may be trained on. Read the warnings below first.", "可以用于训练，但请先阅读下面的警告。"
    ),
    "means.quarantine": Phrase(
        "It is recorded, and training on it is refused until the critical findings are resolved or waived.",
        "该版本已登记，但在严重问题解决或获得豁免之前，不能用于训练。",
    ),
    "means.deny": Phrase("Policy refused it: nothing was stored.", "策略拒绝了该数据集：未存储任何内容。"),
    "means.scan": Phrase("This was a scan: nothing was stored.", "这是一次扫描：未存储任何内容。"),
    # severities
    "severity.critical": Phrase("critical", "严重"),
    "severity.warning": Phrase("warning", "警告"),
    "severity.info": Phrase("info", "提示"),
    # rule families, by prefix of the rule id
    "family.LEAK": Phrase("Leakage", "数据泄漏"),
    "family.POIS": Phrase("Poisoning", "数据投毒"),
    "family.PRIV": Phrase("Privacy", "隐私"),
    "family.QUAL": Phrase("Quality", "数据质量"),
    "family.DRFT": Phrase("Drift", "分布漂移"),
    "family.TAMP": Phrase("Tampering", "篡改"),
    "family.QUOT": Phrase("Quota", "配额"),
    "family.ISOL": Phrase("Isolation", "隔离性"),
    "family.USAG": Phrase("Usage", "资源使用"),
    "family.POLC": Phrase("Policy", "策略"),
    # headings
    "title.dataset": Phrase("Dataset report", "数据集报告"),
    "title.generic": Phrase("Report", "报告"),
    "title.versions": Phrase("Registered datasets", "已登记的数据集"),
    "heading.next": Phrase("What to do", "下一步"),
    "heading.findings": Phrase("Findings", "发现的问题"),
    "heading.each": Phrase("Each finding", "逐项说明"),
    "heading.why": Phrase("Why this verdict", "结论依据"),
    "heading.columns": Phrase("Columns", "列概况"),
    "heading.classes": Phrase("Classes of the label", "标签类别分布"),
    "heading.checks": Phrase("Checks", "检查项"),
    "heading.identity": Phrase("Identity and signature", "身份与签名"),
    "heading.time": Phrase("Where the CPU time went", "CPU 时间分布"),
    # labels
    "label.rows": Phrase("rows", "行"),
    "label.columns": Phrase("columns", "列"),
    "label.findings": Phrase("findings", "项问题"),
    "label.label": Phrase("label column", "标签列"),
    "label.split": Phrase("split", "数据划分"),
    "label.bytes": Phrase("data size", "数据大小"),
    "label.cpu": Phrase("CPU seconds", "CPU 秒"),
    "label.severity": Phrase("Severity", "严重程度"),
    "label.rule": Phrase("Rule", "规则"),
    "label.what": Phrase("What was found", "发现内容"),
    "label.count": Phrase("Count", "数量"),
    "label.rownumbers": Phrase("Rows", "行号"),
    "label.columnnames": Phrase("Columns", "列"),
    "label.where": Phrase("Where in the data", "在数据中的位置"),
    "label.column": Phrase("Column", "列"),
    "label.type": Phrase("Type", "类型"),
    "label.nulls": Phrase("Nulls", "空值"),
    "label.distinct": Phrase("Distinct", "不同值"),
    "label.range": Phrase("Range", "取值范围"),
    "label.mean": Phrase("Mean", "均值"),
    "label.shape": Phrase("Distribution", "分布"),
    "label.check": Phrase("Check", "检查"),
    "label.outcome": Phrase("Outcome", "结果"),
    "label.ran": Phrase("ran", "已运行"),
    "label.skipped": Phrase("skipped", "已跳过"),
    "label.tenant": Phrase("Tenant", "租户"),
    "label.fingerprint": Phrase("Fingerprint", "指纹"),
    "label.digest": Phrase("MLflow digest", "MLflow 摘要"),
    "label.decision": Phrase("Decision", "决策编号"),
    "label.revision": Phrase("Policy revision", "策略版本"),
    "label.engine": Phrase("Policy engine", "策略引擎"),
    "label.key": Phrase("Signing key", "签名密钥"),
    "label.unsigned": Phrase("not signed: nothing was stored", "未签名：未存储任何内容"),
    "label.source": Phrase("Source", "数据来源"),
    "label.created": Phrase("Registered", "登记时间"),
    "label.by": Phrase("Registered by", "登记人"),
    "label.against": Phrase("Compared against", "对比数据集"),
    "label.trusted": Phrase("Trusted baseline", "可信基线"),
    "label.enforcement": Phrase("Enforcement", "执行强度"),
    "label.fdr": Phrase("Expected false positives", "预期误报率"),
    "label.score": Phrase("Score", "得分"),
    "label.seen": Phrase("Evidence", "证据"),
    "label.action": Phrase("What to do", "建议操作"),
    "label.page": Phrase("Rule page", "规则说明"),
    "label.allrows": Phrase("The other {n} ranges", "其余 {n} 个区间"),
    "label.version": Phrase("Version", "版本"),
    "label.verdict": Phrase("Verdict", "结论"),
    "text.noversions": Phrase("No dataset has been registered yet.", "尚未登记任何数据集。"),
    "label.waived": Phrase("Waived", "已豁免"),
    "label.others": Phrase("{n} others", "另外 {n} 个"),
    # sentences
    "text.nofindings": Phrase(
        "The checks that ran found nothing. Read below which ran and which were skipped.",
        "已运行的检查没有发现问题。下面列出了已运行和已跳过的检查。",
    ),
    "text.rowsare": Phrase(
        "Row numbers are 0-based positions in the data as read; a header line is not counted. "
        "In pandas, row r is <code>df.iloc[r]</code>.",
        "行号从 0 开始，按读取顺序计算，不含表头。在 pandas 中，第 r 行为 <code>df.iloc[r]</code>。",
    ),
    "text.wholeset": Phrase("the whole set", "整个数据集"),
    "text.cut": Phrase(
        "and {n} more ranges, all of them in findings.json", "以及另外 {n} 个区间，全部见 findings.json"
    ),
    "text.unfoldcolumns": Phrase("{n} more columns", "另外 {n} 列"),
    "text.morecolumns": Phrase(
        "{n} more columns are not shown; findings.json has them all.",
        "另有 {n} 列未显示，全部见 findings.json。",
    ),
    "text.noreasons": Phrase("The policy gave no reason beyond its verdict.", "策略未给出结论之外的理由。"),
    "text.noprofile": Phrase("No profile was made.", "未生成列概况。"),
    "text.explain": Phrase("The whole decision, with its input", "完整决策及其输入"),
    "text.classes": Phrase(
        "Classes are numbered in sorted order; the name is a salted hash: labels may be confidential.",
        "类别按排序编号；名称为加盐哈希，因为标签内容可能保密。",
    ),
    "label.lengths": Phrase("length", "长度"),
    "text.verify": Phrase("Check later that the data has not changed", "稍后核对数据是否被改动"),
    "text.signed": Phrase(
        "The record of this version (fingerprint, schema, findings, verdict) is signed with this key. "
        "A later change to data or record is found, and named by block and column.",
        "该版本的记录（指纹、结构、问题、结论）已用此密钥签名。此后对数据或记录的任何改动都会被定位到具体的块和列。",
    ),
    "text.novalues": Phrase(
        "This page holds counts, column names, row numbers and salted hashes only: no cell of the data.",
        "本页仅包含计数、列名、行号和加盐哈希，不包含任何单元格内容。",
    ),
    "text.english": Phrase("", "检查程序给出的原文为英文。"),
    "enforcement.enforced": Phrase(
        "enforced: cannot be bypassed inside the stated deployment", "强制：在所述部署内无法绕过"
    ),
    "enforcement.cooperative": Phrase(
        "cooperative: recorded, and contradicted by reconciliation if dodged",
        "协作：有记录；若被绕过，可由核对发现",
    ),
    "enforcement.detective": Phrase("detective: found after the fact", "检测：事后发现"),
    "next.look": Phrase(
        "Look at the rows listed under each finding in your own copy of the data.",
        "在您自己的数据副本中查看每个问题列出的行。",
    ),
    "next.fix": Phrase(
        "Repair them and register again, or remove them (<code>trainguard dataset clean</code>): that makes "
        "the next version; this one stays as evidence.",
        "修复这些行后重新登记，或将其删除（<code>trainguard dataset clean</code>）："
        "会生成新版本，本版本保留为证据。",
    ),
    "next.waive": Phrase(
        "If a finding is a false alarm, ask for a waiver (<code>trainguard dataset waive</code>); for all "
        "versions of the dataset, ask your platform admin and quote the decision id.",
        "如属误报，请申请豁免（<code>trainguard dataset waive</code>）；"
        "若须对该数据集的所有版本生效，请联系平台管理员并提供决策编号。",
    ),
    "next.use": Phrase(
        "Read it with <code>dataset_guard.read</code>, which re-hashes each block against the signed record "
        "before handing out its rows.",
        "请用 <code>dataset_guard.read</code> 读取：每个数据块在交付前都会与签名记录核对。",
    ),
    "next.denied": Phrase(
        "Read the reasons below, change the data or ask your platform admin, then register again.",
        "请阅读下面的理由，修改数据或联系平台管理员，然后重新登记。",
    ),
    "next.scan": Phrase(
        "Register it to give it a version, a signature and a place in the audit log.",
        "登记后将获得版本号、签名和审计记录。",
    ),
    # validation against a suite
    "title.validation": Phrase("Validation", "数据验证"),
    "validation.met": Phrase("Every expectation is met", "全部期望均满足"),
    "validation.unmet": Phrase("Some expectations are not met", "部分期望未满足"),
    "validation.means": Phrase(
        "{met} of {total} expectations of this suite hold for the data.",
        "该套件的 {total} 项期望中有 {met} 项成立。",
    ),
    "validation.expectations": Phrase("expectations", "项期望"),
    "validation.successful": Phrase("met", "满足"),
    "validation.failed": Phrase("not met", "未满足"),
    "validation.percent": Phrase("success", "满足率"),
    "validation.table": Phrase("The table as a whole", "整张表"),
    "validation.expectation": Phrase("Expectation", "期望"),
    "validation.unexpected": Phrase("Unexpected", "不符合"),
    "validation.missing": Phrase("Missing", "缺失"),
    "validation.observed": Phrase("observed: {n}", "实测：{n}"),
    "validation.of": Phrase("of {n}", "共 {n}"),
    "validation.mostly": Phrase("must hold for {share} of the values", "须对 {share} 的值成立"),
    "validation.suite": Phrase("Suite", "期望套件"),
    "validation.suitedigest": Phrase("Suite digest", "套件摘要"),
    "validation.evaluated": Phrase("Evaluated by", "评估引擎"),
    "validation.when": Phrase("Validated", "验证时间"),
    "validation.how": Phrase("How it was done", "验证方式"),
    "validation.novalues": Phrase(
        "This page holds counts, column names and row numbers only: nothing of the data or suite.",
        "本页仅包含计数、列名和行号，不包含任何单元格内容，也不包含套件中的常量。",
    ),
    # policy replay
    "title.replay": Phrase("What a policy change would have done", "策略变更的影响回放"),
    "replay.means": Phrase(
        "Recorded decisions, decided again under the candidate. Nothing was changed.",
        "用候选策略重新判定已记录的决策，未做任何更改。",
    ),
    "replay.decisions": Phrase("decisions", "决策数"),
    "replay.distinct": Phrase("distinct questions", "不同的问题"),
    "replay.changed": Phrase("would change", "将会改变"),
    "replay.gpuhours": Phrase("GPU-hours affected", "受影响的 GPU 小时"),
    "replay.since": Phrase("since", "起始日期"),
    "replay.classes": Phrase("Outcomes", "结果分类"),
    "replay.changes": Phrase("Changes by tenant and rule", "按租户和规则列出的变化"),
    "replay.class": Phrase("change", "变化"),
    "replay.tenant": Phrase("tenant", "租户"),
    "replay.rules": Phrase("rules", "规则"),
    "replay.examples": Phrase("for example", "示例"),
    "replay.more": Phrase(
        "{n} smaller groups are in the JSON format.", "另有 {n} 个较小的分组，见 JSON 格式。"
    ),
    "replay.why": Phrase(
        "Explain an example with <code>trainguard policy why DECISION</code>.",
        "可用 <code>trainguard policy why DECISION</code> 查看示例的详细理由。",
    ),
    "replay.same": Phrase("No decision would change.", "没有任何决策会改变。"),
    "replay.nothing": Phrase("No decision was recorded in this time.", "该时间段内没有决策记录。"),
    "replay.how": Phrase("How it was done", "回放方式"),
    "replay.candidate": Phrase("candidate", "候选版本"),
    "replay.revision": Phrase("decided under", "原决策版本"),
    "replay.time": Phrase("time", "用时"),
}
