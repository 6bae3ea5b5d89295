"""``dg1`` again, slowly, from docs/fingerprint.md alone: plain values and type texts, no Arrow, no numpy.

Values are plain: int (also for dates, times, timestamps and durations, counted in the type's unit),
float, bool, str, bytes, ``decimal.Decimal``, (months, days, nanoseconds), list, dict (struct), list of
pairs (map), (type code, value) for a union, None.
"""

import math
import struct
from decimal import Decimal

from blake3 import blake3

BLOCK = 65_536


def u32(i):
    return i.to_bytes(4, "little")


def u64(i):
    return i.to_bytes(8, "little")


def text(s):
    raw = s.encode("utf-8")
    return u32(len(raw)) + raw


def digest(data):
    return blake3(data).digest()


# --- types: text -> tree -----------------------------------------------------------------------


class Type:
    def __init__(self, kind, **parts):
        self.kind = kind
        self.__dict__.update(parts)


class Parser:
    def __init__(self, source):
        self.source, self.at = source, 0

    def take(self, token):
        assert self.source.startswith(token, self.at), (self.source, self.at, token)
        self.at += len(token)

    def peek(self, token):
        return self.source.startswith(token, self.at)

    def word(self):
        start = self.at
        while self.at < len(self.source) and (self.source[self.at].isalnum() or self.source[self.at] == "_"):
            self.at += 1
        return self.source[start : self.at]

    def number(self):
        start = self.at
        while self.source[self.at].isdigit() or self.source[self.at] == "-":
            self.at += 1
        return int(self.source[start : self.at])

    def quoted(self):
        self.take('"')
        out = ""
        while not self.peek('"'):
            if self.peek("\\"):
                self.at += 1
            out += self.source[self.at]
            self.at += 1
        self.take('"')
        return out

    def type(self):
        kind = self.word()
        if kind == "decimal":
            self.take("(")
            p = self.number()
            self.take(", ")
            s = self.number()
            self.take(")")
            return Type(kind, precision=p, scale=s)
        if kind in ("time", "timestamp", "duration", "interval"):
            self.take("[")
            unit = self.word()
            zone = None
            if self.peek(", tz="):
                self.take(", tz=")
                zone = self.quoted()
            self.take("]")
            return Type(kind, unit=unit, zone=zone)
        if kind == "fixed_size_binary":
            self.take("[")
            width = self.number()
            self.take("]")
            return Type(kind, width=width)
        if kind == "fixed_size_list":
            self.take("[")
            size = self.number()
            self.take("]<")
            return self.close(Type(kind, size=size, item=self.type()))
        if kind == "list":
            self.take("<")
            return self.close(Type(kind, item=self.type()))
        if kind == "map":
            self.take("<")
            key = self.type()
            self.take(", ")
            return self.close(Type(kind, key=key, value=self.type()))
        if kind == "struct":
            self.take("<")
            members = []
            while not self.peek(">"):
                if members:
                    self.take(", ")
                name = self.quoted()
                self.take(": ")
                members.append((name, self.type()))
            return self.close(Type(kind, members=members))
        if kind == "union":
            self.take("<")
            members = []
            while not self.peek(">"):
                if members:
                    self.take(", ")
                code = self.number()
                self.take(" ")
                self.quoted()
                self.take(": ")
                members.append((code, self.type()))
            return self.close(Type(kind, members=members))
        if kind == "extension":
            self.take("<")
            self.quoted()
            self.take(", ")
            self.quoted()
            self.take(", ")
            return self.close(self.type())
        return Type(kind)

    def close(self, found):
        self.take(">")
        return found


def parse(source):
    return Parser(source).type()


# --- leaves and roots --------------------------------------------------------------------------


def bitmap(flags):
    out = bytearray((len(flags) + 7) // 8)
    for i, flag in enumerate(flags):
        if flag:
            out[i // 8] |= 1 << (i % 8)
    return bytes(out)


def body(t, values):
    head = u64(len(values))
    if t.kind == "null":
        return head
    if t.kind == "union":
        out = head + bytes(code for code, _ in values)
        for code, member in t.members:
            out += body(member, [v for c, v in values if c == code])
        return out
    present = [v is not None for v in values]
    head += b"\0" if all(present) else b"\1" + bitmap(present)
    return head + payload(t, values)


def float_bytes(width, v):
    nan = {2: 0x7E00, 4: 0x7FC00000, 8: 0x7FF8000000000000}[width]
    if v is not None and math.isnan(v):
        return nan.to_bytes(width, "little")
    return struct.pack({2: "<e", 4: "<f", 8: "<d"}[width], 0.0 if v is None or v == 0 else v)


def integer(width, v, signed=True):
    return (v or 0).to_bytes(width, "little", signed=signed)


def decimal_bytes(t, v):
    scaled = 0
    if v is not None:
        sign, digits, exponent = Decimal(v).as_tuple()
        scaled = int("".join(map(str, digits))) * 10 ** (exponent + t.scale) * (-1 if sign else 1)
    return int(scaled).to_bytes(16 if t.precision <= 38 else 32, "little", signed=True)


def interval_bytes(v):
    months, days, nanoseconds = v or (0, 0, 0)
    return integer(4, months) + integer(4, days) + integer(8, nanoseconds)


def payload(t, values):
    k = t.kind
    if k == "bool":
        return bitmap([bool(v) for v in values])
    if k.startswith("float"):
        return b"".join(float_bytes(int(k[5:]) // 8, v) for v in values)
    if k.startswith("int") and k != "interval":
        return b"".join(integer(int(k[3:]) // 8, v) for v in values)
    if k.startswith("uint"):
        return b"".join(integer(int(k[4:]) // 8, v, signed=False) for v in values)
    if k == "decimal":
        return b"".join(decimal_bytes(t, v) for v in values)
    if k == "date":
        return b"".join(integer(4, v) for v in values)
    if k == "time":
        return b"".join(integer(4 if t.unit == "ms" else 8, v) for v in values)
    if k in ("timestamp", "duration"):
        return b"".join(integer(8, v) for v in values)
    if k == "interval":
        return b"".join(map(interval_bytes, values))
    if k in ("string", "binary"):
        raws = [(v.encode() if k == "string" else v) if v is not None else b"" for v in values]
        return b"".join(u32(len(r)) for r in raws) + b"".join(raws)
    if k == "fixed_size_binary":
        return b"".join(bytes(t.width) if v is None else v for v in values)
    if k == "list":
        return b"".join(u32(len(v or [])) for v in values) + body(
            t.item, [x for v in values for x in v or []]
        )
    if k == "map":
        entries = [dict(zip(("key", "value"), pair, strict=True)) for v in values for pair in v or []]
        inner = Type("struct", members=[("key", t.key), ("value", t.value)])
        return b"".join(u32(len(v or [])) for v in values) + body(inner, entries)
    if k == "fixed_size_list":
        return body(t.item, [x for v in values if v is not None for x in v])
    assert k == "struct", k
    return b"".join(body(m, [None if v is None else v[name] for v in values]) for name, m in t.members)


def merkle(leaves):
    if not leaves:
        return digest(b"dg1:none\0")
    while len(leaves) > 1:
        paired = [leaves[i : i + 2] for i in range(0, len(leaves), 2)]
        leaves = [digest(b"dg1:node\0" + p[0] + p[1]) if len(p) == 2 else p[0] for p in paired]
    return leaves[0]


def roots(columns, rows):
    """(sequence root, schema root) as hex, for ``columns`` = {name: (type text, values)}."""
    sequence = b"dg1:sequence\0" + u64(rows) + u32(len(columns))
    schema = b"dg1:schema\0" + u32(len(columns))
    for name in sorted(columns, key=str.encode):
        type_text, values = columns[name]
        head = text(name) + text(type_text)
        leaves = [
            digest(b"dg1:leaf\0" + head + body(parse(type_text), values[i : i + BLOCK]))
            for i in range(0, rows, BLOCK)
        ]
        sequence += head + merkle(leaves)
        schema += head
    return digest(sequence).hex(), digest(schema).hex()


# --- rows --------------------------------------------------------------------------------------


def leb(i):
    out = bytearray()
    while True:
        low, i = i & 127, i >> 7
        out.append(low | (128 if i else 0))
        if not i:
            return bytes(out)


def coarsest(unit, v):
    units = ["s", "ms", "us", "ns"]
    step = units.index(unit)
    while step > 0 and v % 1000 == 0:
        v, step = v // 1000, step - 1
    return step, v


def cell(t, v):
    k = t.kind
    if k == "union":
        code, inner = v
        return bytes([27, code]) + cell(dict(t.members)[code], inner)
    if v is None:
        return b"\0"
    if k == "bool":
        return b"\2" if v else b"\1"
    if k.startswith(("int", "uint")) and k != "interval":
        return b"\4" + u64(v) if v >= 2**63 else b"\3" + integer(8, v)
    if k.startswith("float"):
        return b"\5" + float_bytes(8, v)
    if k == "date":
        return b"\6" + integer(8, v)
    if k == "time":
        return b"\7" + integer(8, v * {"ms": 10**6, "us": 10**3, "ns": 1}[t.unit])
    if k in ("timestamp", "duration"):
        base = 16 if k == "duration" else 8 if t.zone is None else 12
        step, v = coarsest(t.unit, v)
        return bytes([base + step]) + integer(8, v)
    if k in ("string", "binary", "fixed_size_binary"):
        raw = v.encode() if k == "string" else v
        return (b"\x14" if k == "string" else b"\x15") + leb(len(raw)) + raw
    if k == "decimal":
        return b"\x16" + integer(4, t.scale) + decimal_bytes(t, v)
    if k == "interval":
        return b"\x17" + interval_bytes(v)
    if k in ("list", "fixed_size_list"):
        return b"\x18" + leb(len(v)) + b"".join(cell(t.item, x) for x in v)
    if k == "map":
        return b"\x19" + leb(len(v)) + b"".join(cell(t.key, a) + cell(t.value, b) for a, b in v)
    assert k == "struct", k
    members = b"".join(cell(Type("string"), name) + cell(m, v[name]) for name, m in t.members)
    return b"\x1a" + leb(len(t.members)) + members


def row_digests(columns, rows):
    names = sorted(columns, key=str.encode)
    hasher = blake3(derive_key_context="trainguard 2026-11 dg1 row digest")
    for name in names:
        hasher.update(text(name))
    key = hasher.digest()
    types = {name: parse(columns[name][0]) for name in names}
    return [
        blake3(b"".join(cell(types[name], columns[name][1][r]) for name in names), key=key).digest()
        for r in range(rows)
    ]


def set_root(columns, rows):
    names = sorted(columns, key=str.encode)
    out = b"dg1:set\0" + u64(rows) + u32(len(names)) + b"".join(map(text, names))
    return digest(out + b"".join(sorted(d[:16] for d in row_digests(columns, rows)))).hex()
