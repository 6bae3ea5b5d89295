"""Numbers of persons that carry check digits: resident ids, payment cards, bank accounts, wallets."""

from __future__ import annotations

import datetime as dt
import hashlib
import re

# GB 11643-1999: weights and check symbols; GB/T 2260: the provinces' codes.
_RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_RESIDENT_SYMBOLS = "10X98765432"
_PROVINCES = frozenset(
    int(code)
    for code in re.findall(
        r"\d\d",
        "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65"
        " 71 81 82 83",
    )
)

# ISO/IEC 7812 issuer ranges, and the lengths that their networks issue.
_CARDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"  # American Express, Diners Club
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}|35(?:2[89]|[3-8]\d)\d{12}"  # Discover, UnionPay, JCB
)
_TEST_CARDS = frozenset(
    re.findall(
        r"\d+",
        "4111111111111111 4242424242424242 4012888888881881 4000056655665556 4222222222222 5555555555554444"
        " 5105105105105100 5200828282828210 2223003122003222 378282246310005 371449635398431 378734493671000"
        " 30569309025904 38520000023237 6011111111111117 6011000990139424 3530111333300000 3566002020360505"
        " 6200000000000005",
    )
)

# Lengths of the IBAN registry (ISO 13616).
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29"
        " ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20"
        " LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25"
        " QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20",
    )
}
_TEST_IBANS = frozenset(
    re.findall(
        r"\w+",
        "GB82WEST12345698765432 DE89370400440532013000 FR1420041010050500013M02606 GB29NWBK60161331926819"
        " CH9300762011623852957 NL91ABNA0417164300 ES9121000418450200051332",
    )
)


def resident_id(text: str) -> bool | None:
    """GB 11643: None when ``text`` is not of the form (province, real date of birth); else whether its check
    digit is right.
    """
    if not re.fullmatch(r"\d{17}[\dXx]", text) or int(text[:2]) not in _PROVINCES:
        return None
    try:
        born = dt.date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return None
    if not 1890 <= born.year <= 2099:
        return None
    total = sum(w * int(d) for w, d in zip(_RESIDENT_WEIGHTS, text[:17], strict=True))
    return _RESIDENT_SYMBOLS[total % 11] == text[17].upper()


def payment_card(digits: str) -> bool | None:
    """ISO/IEC 7812: None for no issuer's range and length, or a documented test number; else whether Luhn's
    sum is right.
    """
    if not _CARDS.fullmatch(digits) or digits in _TEST_CARDS or len(set(digits)) < 4:
        return None
    doubled = (sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def bank_account(text: str) -> bool | None:
    """ISO 13616 IBAN without blanks: None for no country's form, or a documented example; else whether mod 97
    is 1.
    """
    if _IBAN_LENGTHS.get(text[:2]) != len(text) or not text[2:4].isdigit() or text in _TEST_IBANS:
        return None
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def iban_length(country: str) -> int:
    """How long an IBAN of ``country`` is; 0 for a country that has none."""
    return _IBAN_LENGTHS.get(country, 0)


# ITU-T E.164: the country codes of one and two digits; every other begins a code of three.
_SHORT_CODES = frozenset(
    re.findall(
        r"\d+",
        "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65"
        " 66 81 82 84 86 90 91 92 93 94 95 98",
    )
)
_LONG_CODES = frozenset(
    re.findall(r"\d+", "21 22 23 24 25 26 29 35 37 38 42 50 59 67 68 69 80 85 87 88 96 97 99")
)
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def phone_number(digits: str) -> bool:
    """ITU-T E.164: a country code, and 8 to 15 digits in all of which not nearly all are alike."""
    known = digits[:1] in _SHORT_CODES or digits[:2] in _SHORT_CODES or digits[:2] in _LONG_CODES
    length = 11 if digits[:1] == "1" else None  # North America's plan has one length
    if not known or digits.startswith("999") or not 8 <= len(digits) <= 15:
        return False
    return length in (None, len(digits)) and len(set(digits)) > 3


def wallet_address(text: str) -> bool:
    """A Base58Check address (Bitcoin and its kin): 25 bytes of which the last four check the others."""
    number = 0
    for char in text:
        number = number * 58 + _BASE58.index(char)
    if number >= 1 << 200:
        return False
    raw = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(raw[:21]).digest()).digest()[:4] == raw[21:]
