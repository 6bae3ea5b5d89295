"""An e-mail to whoever is on call: a summary, and the drafts of the notices in both languages as attachments.

The notices are drafts. This goes to the operator's own people, who release them; it is not the notice itself.
"""

from __future__ import annotations

from email.message import EmailMessage
from email.policy import SMTP

from compute_guard.incidents import notices, words
from compute_guard.routes import Letter, Route
from guard_core.clock import rfc3339


def message(letter: Letter, route: Route) -> EmailMessage:
    """The message. Its Message-ID is the letter's, so a repetition can be told as one."""
    zh = route.language == "zh"
    incident = letter.incident
    kind = notices.KINDS.get(incident.kind, {}).get(route.language, incident.kind)
    change = words.said(words.CHANGES, letter.what, route.language)
    severity = words.said(words.SEVERITIES, letter.severity, route.language)
    exercise = ("[演练] " if zh else "[EXERCISE] ") if incident.synthetic else ""
    found = EmailMessage(policy=SMTP)
    found["From"], found["To"] = route.sender, ", ".join(route.to)
    found["Subject"] = _one_line(f"{exercise}TrainGuard {severity}: {kind} ({incident.tenant}), {change}")
    found["Date"] = letter.at
    found["Message-ID"] = f"<{letter.id}@trainguard.invalid>"
    found["Auto-Submitted"] = "auto-generated"
    lines = [
        f"{'事件编号' if zh else 'Incident'}: {incident.id}",
        f"{'租户' if zh else 'Tenant'}: {incident.tenant}",
        f"{'作业' if zh else 'Job'}: {incident.job}",
        f"{'发现时间' if zh else 'Opened'}: {rfc3339(incident.opened_at)}",
        f"{'级别' if zh else 'Severity'}: {severity}",
        "",
        *(
            f"- {words.channel_name(name, route.language)}: {words.message(channel, route.language)}"
            for name, channel in incident.evidence["channels"].items()
        ),
        "",
        *(
            f"{a['level']} {words.said(words.STEPS, a['action'], route.language)}: "
            f"{words.said(words.OUTCOMES, a['state'], route.language)}"
            for a in letter.actions
        ),
        "",
        f"trainguard incident show {incident.id}",
    ]
    found.set_content("\n".join(_one_line(line) for line in lines) + "\n")
    hours = {**notices.DEADLINE_HOURS, **letter.deadline_hours}
    for audience in notices.AUDIENCES if letter.severity == "incident" else ("customer",):
        for language in words.LANGUAGES:
            text = notices.render(
                audience, language, incident, letter.actions, deadline_hours=hours, now=letter.at
            )
            found.add_attachment(text, subtype="markdown", filename=f"{audience}.{language}.md")
    return found


def _one_line(text: str) -> str:
    """A job may be called anything; a header must stay one."""
    return " ".join(text.split())[:500]
