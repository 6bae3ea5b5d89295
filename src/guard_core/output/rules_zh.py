"""What each dataset rule found and what to do about it, in Simplified Chinese.

A finding's own message is English and says more (which set, which share); a report in Chinese shows this
sentence in its place. Numbers, columns, rows and evidence stand beside it in either language. A rule of
somebody else's check is not here: its message is shown as it is.
"""

from __future__ import annotations

from typing import NamedTuple


class RuleText(NamedTuple):
    """``found`` may hold ``{n}``, the finding's count."""

    found: str
    action: str


RULES: dict[str, RuleText] = {
    "LEAK001": RuleText("{n}行与前面的某一行完全相同。", "删除重复行，或在划分数据时让相同的行留在同一侧。"),
    "LEAK002": RuleText(
        "{n}行也出现在对比的数据集中，在该数据集上测得的成绩会偏高。", "训练前从其中一个数据集中删除这些行。"
    ),
    "LEAK003": RuleText(
        "{n}行的文本与前面的行或对比数据集中的行几乎相同。", "每组只保留一行，或让同组的行留在同一侧。"
    ),
    "LEAK004": RuleText(
        "{n}行包含评测集的题目（含改写），在该评测上的成绩会偏高。",
        "训练前删除这些行，或从评测中去掉这些题目并加以说明。",
    ),
    "LEAK005": RuleText(
        "{n}行的图片与前面的行或对比数据集中的图片几乎相同。", "每组只保留一行，或让同组的行留在同一侧。"
    ),
    "LEAK006": RuleText(
        "测试集或验证集中的同一批对象（如同一患者、用户）也出现在这里，共{n}行。",
        "按该键列划分数据，使同一对象的行都在一侧。",
    ),
    "LEAK007": RuleText("{n}行的时间落在测试集的时间段内。", "按时间重新划分，或删除这些行。"),
    "LEAK008": RuleText(
        "有一列单独就能推出标签，可能是结果发生之后才记录的。", "去掉该列；若它确实先于标签已知，可申请豁免。"
    ),
    "POIS001": RuleText(
        "{n}行的特征与可信版本相同，但标签不同。",
        "查明是谁改了标签；恢复可信版本的标签，若属有意更正可申请豁免。",
    ),
    "POIS002": RuleText("{n}行的标签可能有误。", "请人复核这些行，错误的予以删除或重新标注。"),
    "POIS003": RuleText(
        "{n}行的标签是某一类，内容却像另一类，而反向几乎没有：标签可能被人改动。",
        "请人复核这些行，错误的予以删除或重新标注，并查明是谁标注的。",
    ),
    "POIS004": RuleText(
        "来自同一来源的{n}行，其标签与模型的判断相反的比例远高于其他来源。",
        "请人工查看这些行，并查明该来源的标注方式；剔除或改正错误的标签。",
    ),
    "POIS010": RuleText(
        "{n}行在固定位置有相同的少数像素，且多属同一类别：可能是后门触发器。",
        "查看这些行；训练前剔除或恢复可信版本。",
    ),
    "POIS011": RuleText(
        "同一类别的{n}行含有无法用其他内容解释的相同词语：可能是后门触发器。",
        "查看这些文本的共同之处；剔除或恢复可信版本。",
    ),
    "POIS012": RuleText(
        "同一类别的{n}行新数据含有可信数据中几乎没有的取值组合：可能是后门触发器。",
        "查看所列各列；剔除这些行或恢复可信版本。",
    ),
    "POIS013": RuleText(
        "同一类别的{n}张图片在任意位置含有相同的细小图案：可能是后门触发器。",
        "查看这些图片；训练前剔除或恢复可信版本。",
    ),
    "POIS014": RuleText(
        "同一类别的{n}张图片以相同方式偏离本类：可能被混入了一幅淡淡的图案。",
        "用这些图片的均值减去该类的均值，查看剩下的图案；训练前剔除或恢复可信版本。",
    ),
    "POIS020": RuleText("{n}行含有读者看不见的字符。", "用能显示此类字符的编辑器查看，删除被植入的内容。"),
    "POIS021": RuleText(
        "{n}行的单词中用其他文字的相似字母冒充拉丁字母。", "用能显示此类字符的编辑器查看，删除被植入的内容。"
    ),
    "POIS022": RuleText(
        "{n}行含有对模型的指令或聊天格式标记。", "阅读这些行，剔除并非样本内容、而是对模型说话的部分。"
    ),
    "POIS023": RuleText("{n}行用同一段文本回答许多不同的问题。", "阅读该回答；若属植入，剔除这些行。"),
    "POIS024": RuleText(
        "同一来源的{n}行文本互为近似副本，比例远高于其他来源。",
        "每种文本只保留一行，并查明该来源为何大量重复。",
    ),
    "PRIV001": RuleText("{n}行含有已知格式的密钥或令牌。", "先在签发方吊销，再删除或遮蔽，然后重新登记。"),
    "PRIV002": RuleText(
        "{n}行疑似含有赋值的随机密钥或口令。", "查看这些行；属实的先吊销，再删除或遮蔽，然后重新登记。"
    ),
    "PRIV010": RuleText("{n}行含有个人号码或地址。", "删除或遮蔽，或记录该数据集可以包含个人信息的理由。"),
    "PRIV011": RuleText(
        "Presidio确认了其中{n}个值是个人号码。", "将已确认的值视为个人信息；豁免前抽查其余值。"
    ),
    "PRIV012": RuleText("某一列含有人名，共{n}行。", "删除该列或将其假名化，或记录可含人名的理由。"),
    "DRFT001": RuleText(
        "新数据在某一列上的分布与可信数据不同。", "查明来源的变化；若属正常，可将本版本设为可信版本。"
    ),
    "DRFT002": RuleText(
        "分类器能把新数据与可信数据区分开：各列的组合发生了变化。",
        "先看 DRFT001 指出的列；若没有单列漂移，则是列的组合发生了变化。",
    ),
    "DRFT003": RuleText("{n}行新数据远离所有可信数据。", "查看这些行，核实来源、单位和录入。"),
    "QUAL001": RuleText("有一条期望未满足，涉及{n}处。", "更正数据，或修改期望套件。"),
    "QUAL002": RuleText("列缺失或类型与期望不符。", "按期望的列和类型导出数据，或修改期望套件。"),
    "QUAL003": RuleText("{n}行与另一行特征相同而标签不同。", "确定哪个标签正确；模型无法同时学会两者。"),
    "QUAL004": RuleText("{n}条期望未能评估。", "提高预算、更正期望，或在能查询数据的地方运行。"),
    "QUAL010": RuleText("{n}列完全没有值。", "删除这些列，或查明导出时为何为空。"),
    "QUAL011": RuleText("{n}行没有标签。", "训练前补标或剔除这些行。"),
    "QUAL012": RuleText("{n}列的类型自可信版本以来发生变化。", "转换回原类型，或将本版本登记为可信。"),
    "QUAL013": RuleText(
        "与可信版本相比，共有{n}列缺失或新增，无法逐行比较。",
        "将新的列结构登记为单独的版本，并将其设为可信。",
    ),
    "QUAL014": RuleText(
        "一列几乎全是数字，却因{n}个非数字值（缺失值用词或其他文本）而成为文本列。",
        "缺失的单元格留空，改正其余的值，再重新写出文件；之后该列会按数字读取。",
    ),
    "QUAL099": RuleText(
        "一项检查运行失败，其规则对本数据没有结论。", "向检查的作者报告，或用 --checks 略过该检查。"
    ),
}
"""By rule id; a test holds it against docs/rules."""


def found(rule_id: str, count: int | None) -> str | None:
    """The sentence of a finding, or None when the rule is not ours."""
    text = RULES.get(rule_id)
    if text is None:
        return None
    return text.found.replace("{n}", "若干" if count is None else f" {count:,} ").strip()


def action(rule_id: str) -> str | None:
    """What to do, or None when the rule is not ours."""
    text = RULES.get(rule_id)
    return None if text is None else text.action
