"""Numbers and addresses of persons in text: counted per column, believed only when check digits say so.

A column of order numbers has right check digits by chance in every tenth row. So per column and kind, the
candidates whose check digits are wrong tell how many of the right ones are chance; that share is the
finding's ``fdr``, and above ``chance_limit`` nothing is reported.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Need, Rows, counted
from dataset_guard.checks.privacy.numbers import (
    bank_account,
    iban_length,
    payment_card,
    phone_number,
    resident_id,
    wallet_address,
)
from dataset_guard.checks.privacy.tally import Tally
from dataset_guard.checks.privacy.text_buffers import TextBuffer, holds_text, text_buffers
from guard_core.findings import Finding, Severity

_DIGITS = rb"[0-9](?:[ -]?[0-9]){10,18}[Xx]?"
_RUN = re.compile(rb"(?<![0-9A-Za-z_.])(?<![0-9][ -])(?:" + _DIGITS + rb")(?![0-9A-Za-z_]|\.[0-9]|[ -][0-9])")
_GROUPS = re.compile(r"\d+|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5}")
_PHONE_GROUPS = re.compile(r"(?:86[ -]?)?(1[3-9]\d{9}|1[3-9]\d[ -]\d{4}[ -]\d{4})")
_ADDRESS = re.compile(
    rb"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@((?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24})(?![A-Za-z0-9@])"
)
_RESERVED = re.compile(
    rb"(?:^|\.)(?:example\.(?:com|org|net)|example|test|invalid|localhost)$", re.IGNORECASE
)  # RFC 2606
_ACCOUNT = re.compile(rb"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}")

_INTERNATIONAL = re.compile(
    rb"(?<![0-9A-Za-z])\+([1-9][0-9]{0,2})((?:[ .-]?\(?[0-9]{2,}\)?){2,8})(?![0-9A-Za-z_]|[ .-]?[0-9])"
)
_SOCIAL = re.compile(
    rb"(?<![0-9A-Za-z_.-])(?!000|666|9)([0-9]{3})-(?!00)([0-9]{2})-(?!0000)([0-9]{4})(?![0-9A-Za-z_-])"
)
_PASSPORT = re.compile(rb"[A-Z]{1,2}[0-9]{6,9}(?![0-9A-Za-z_])")
_PASSPORT_SAID = re.compile("passport|护照|passeport|reisepass|pasaporte".encode(), re.IGNORECASE)
_WALLET = re.compile(rb"[13][1-9A-HJ-NP-Za-km-z]{25,34}(?![0-9A-Za-z_])")
_STREET = re.compile(
    rb"[1-9][0-9]{0,4} (?:[A-Z][a-z]+\.? ){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln"
    rb"|Drive|Dr|Court|Ct|Square|Terrace|Parkway|Pkwy|Highway|Hwy)\b"
)
_HOUSE = re.compile("(?:路|街|巷|弄|大道|胡同)[0-9]{1,5}号".encode())

CHANCE = {"resident_id": 1 / 11, "payment_card": 1 / 10, "bank_account": 1 / 97, "mobile_number": 7 / 100}
"""How often a candidate of a kind that is something else looks right."""


@dataclass(frozen=True, slots=True)
class PersonalData:
    """PRIV010: resident ids, payment cards, IBANs, phone numbers, e-mail and postal addresses, passports, ...

    ``columns``: the columns to look at; none named means all. ``chance_limit``: the largest share of chance
    hits among those of a column and kind with which they are still reported.
    """

    columns: tuple[str, ...] = ()
    chance_limit: float = 0.2

    name: ClassVar[str] = "personal_data"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("PRIV010",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs a column with text or bytes in it."""
        return None if self.chosen(context) else "there is no column with text"

    def chosen(self, context: CheckContext) -> list[str]:
        """The columns to look at."""
        held = [f.name for f in context.schema if holds_text(f.type)]
        return [n for n in held if not self.columns or n in self.columns]

    def start(self, context: CheckContext) -> PersonalDataState:
        """Nothing seen."""
        return PersonalDataState(self, context)


Candidate = tuple[int, str, bool, bytes]
"""Item, kind, whether it is believed, the value (which lives only until it is counted)."""


def find(buffer: TextBuffer) -> Iterator[Candidate]:
    """All candidates in ``buffer``."""
    for item, _, told in located(buffer):
        yield item, *told


def located(buffer: TextBuffer) -> Iterator[tuple[int, int, tuple[str, bool, bytes]]]:
    """Of each candidate the item, the byte of the buffer that led to it, and what it is."""
    from dataset_guard.checks.privacy import first_look as look

    judges = {
        look.NUMBER: _a_number, look.MAIL: _a_mail, look.ACCOUNT: _an_account, look.PHONE: _a_phone,
        look.SOCIAL: _a_social, look.PASSPORT: _a_passport, look.WALLET: _a_wallet,
        look.STREET: _a_street, look.HOUSE: _a_house,
    }  # fmt: skip
    for places in look.look(buffer.offsets, buffer.data):
        if buffer.present is not None:
            places = places[buffer.present[places[:, 0]]]  # a null's bytes are undefined
        for item, start, kind in places.tolist():
            window, at = buffer.window(item, start, 65, 256)
            told = judges[kind](window, at)
            if told is not None:
                yield item, start, told


Told = tuple[str, bool, bytes] | None
"""Kind, whether its check digits are right, and the value."""


def _a_number(window: bytes, at: int) -> Told:
    run = _RUN.match(window, at)
    return None if run is None else _number(run[0].decode())


def _a_mail(window: bytes, at: int) -> Told:
    start = at
    while start and window[start - 1 : start] in _LOCAL:
        start -= 1
    address = _ADDRESS.search(window, start)
    if address is None or address.start(1) != at + 1 or _RESERVED.search(address[1]):
        return None
    return "email_address", True, address[0].lower()


def _an_account(window: bytes, at: int) -> Told:
    account = _ACCOUNT.match(window, at)
    if account is None:
        return None
    size = iban_length(account[0][:2].decode())
    plain = account[0].replace(b" ", b"").decode()[:size]
    right = bank_account(plain)
    return None if right is None else ("bank_account", right, plain.encode())


def _a_phone(window: bytes, at: int) -> Told:
    found = _INTERNATIONAL.match(window, at)
    if found is None:
        return None
    digits = re.sub(rb"[^0-9]", b"", found[0])
    if digits.startswith(b"86") and len(digits) == 13 and digits[2:3] == b"1":
        return None  # a mainland mobile number: the run of digits says so
    if len(found[0]) == len(digits) + 1 and len(digits) < 10:
        return None  # a number with a sign
    return ("phone_number", True, digits) if phone_number(digits.decode()) else None


def _a_social(window: bytes, at: int) -> Told:
    found = _SOCIAL.match(window, at)
    return None if found is None else ("us_social_security_number", True, found[0])


def _a_passport(window: bytes, at: int) -> Told:
    found = _PASSPORT.match(window, at)
    if found is None or not _PASSPORT_SAID.search(window, max(0, at - 48), found.end() + 32):
        return None
    return "passport_number", True, found[0]


def _a_wallet(window: bytes, at: int) -> Told:
    found = _WALLET.match(window, at)
    return ("wallet_address", True, found[0]) if found and wallet_address(found[0].decode()) else None


def _a_street(window: bytes, at: int) -> Told:
    found = _STREET.match(window, at)
    return None if found is None else ("postal_address", True, found[0])


def _a_house(window: bytes, at: int) -> Told:
    found = _HOUSE.search(window, max(0, at - 24))
    return (
        None if found is None or not found.start() < at < found.end() else ("postal_address", True, found[0])
    )


_LOCAL = frozenset(bytes([c]) for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-")


def _number(text: str) -> tuple[str, bool, bytes] | None:
    """Kind, whether its check digits are right, and the digits, of a run of digits."""
    right = resident_id(text)
    if right is not None:
        return "resident_id", right, text.upper().encode()
    digits = re.sub(r"\D", "", text)
    phone = _PHONE_GROUPS.fullmatch(text)
    if phone is not None:
        return "mobile_number", True, digits[-11:].encode()
    if len(digits) == 11 and text == digits:
        return "mobile_number", False, digits.encode()
    right = payment_card(digits) if _GROUPS.fullmatch(text) else None
    return None if right is None else ("payment_card", right, digits.encode())


class PersonalDataState:
    """Memory: a :class:`Tally` for each column and kind, below 1.2 MB; one batch's candidates for a while."""

    def __init__(self, check: PersonalData, context: CheckContext) -> None:
        self._check = check
        self._columns = check.chosen(context)
        self._tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
        self._wrong: Counter[tuple[str, str]] = Counter()

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Search the batch's text."""
        for name in self._columns:
            rows: dict[str, list[Rows]] = defaultdict(list)
            values: dict[str, list[bytes]] = defaultdict(list)
            for buffer in text_buffers(batch.column(name)):
                for kind, right, items, texts in _grouped(buffer):
                    at, index = buffer.uses(items)
                    if right:
                        rows[kind].append(at)
                        values[kind] += [texts[i] for i in np.unique(index)]
                    else:
                        self._wrong[name, kind] += len(at)
            for kind, parts in rows.items():
                every = np.concatenate(parts)
                if len(every):
                    seen = Counter({kind: len(every)})
                    self._tallies[name, kind].add(seen, np.unique(every) + first_row, values[kind])

    def merge(self, other: PersonalDataState) -> None:
        """Add the counts."""
        self._wrong += other._wrong
        for key, tally in other._tallies.items():
            self._tallies[key].merge(tally)

    def finish(self) -> Iterator[Finding]:
        """One warning for each column and kind that is more than chance."""
        for (column, kind), tally in sorted(self._tallies.items()):
            right, wrong = tally.kinds[kind], self._wrong[column, kind]
            chance = CHANCE.get(kind)
            by_chance = None if chance is None else min(1.0, wrong * chance / (1 - chance) / right)
            if by_chance is not None and by_chance > self._check.chance_limit:
                continue
            yield Finding(
                rule_id="PRIV010",
                severity=Severity.WARNING,
                message=f"{counted(tally.rows, 'row')} of column {column!r} {_verb(tally)} "
                f"{NAMES[kind]} ({right:,} in all).",
                columns=(column,),
                rows=tally.row_set(),
                count=tally.rows,
                fdr=None if by_chance is None else round(by_chance, 6),
                action="Remove or mask them, or record why this set may hold personal data.",
                evidence={**tally.evidence(), "wrong_check_digits": wrong},
            )


def _verb(tally: Tally) -> str:
    return "holds" if tally.rows == 1 else "hold"


NAMES = {
    "resident_id": "Chinese resident id numbers",
    "payment_card": "payment card numbers",
    "bank_account": "bank account numbers (IBAN)",
    "mobile_number": "mobile phone numbers",
    "phone_number": "international phone numbers",
    "passport_number": "passport numbers",
    "us_social_security_number": "US social security numbers",
    "wallet_address": "cryptocurrency addresses",
    "postal_address": "postal addresses",
    "email_address": "e-mail addresses",
}


def _grouped(buffer: TextBuffer) -> Iterator[tuple[str, bool, Rows, list[bytes]]]:
    groups: dict[tuple[str, bool], list[tuple[int, bytes]]] = defaultdict(list)
    for item, kind, right, value in find(buffer):
        groups[kind, right].append((item, value))
    for (kind, right), hits in groups.items():
        yield kind, right, np.array([i for i, _ in hits], np.int64), [v for _, v in hits]


CHECK = PersonalData()
