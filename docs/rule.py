#!/usr/bin/env python3
"""Judges the golden vectors by the definitions of rule.md alone: a reader of the ledger in another language.

    docs/rule.py ledger/src/rule/golden.jsonl ledger/src/log/kafka/golden.jsonl

It ends with 1 at the first vector that it judges otherwise.
"""

import hashlib
import json
import re
import sys
from datetime import datetime

RULE = 1
COMMIT_BYTES_MAX = 60 * 1024
NO_HASH = "0" * 64
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{0,8}[1-9]))?Z", re.ASCII)
TYPE = re.compile(r"ionledger\.commit\.v(0|[1-9][0-9]*)", re.ASCII)


class Malformed(Exception):
    """The bytes are no commit."""


class Halt(Exception):
    """The bytes were written for another rule; its number."""


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# The tree: RFC 6962, section 2.1.


def leaf(record):
    return sha256(b"\0", record)


def root(leaves):
    if not leaves:
        return sha256()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1", root(leaves[:split]), root(leaves[split:]))


# The record.


def stub(record):
    """What stands for bytes that are no commit, on every carrier and in the tree."""
    digest = hashlib.sha256(record).hexdigest()
    return b'{"malformed":{"sha256":"%s","len":%d}}' % (digest.encode(), len(record))


def strict(text):
    """Reads JSON in which no object has a key twice. Keeps whole numbers apart from others and from true."""

    def pairs(found):
        names = [name for name, _ in found]
        if len(set(names)) != len(names):
            raise ValueError("a key twice")
        return dict(found)

    def no(word):
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, object_pairs_hook=pairs, parse_constant=no)


def need(holds):
    if not holds:
        raise Malformed


def fields(value, *names):
    need(isinstance(value, dict) and set(value) == set(names))
    return [value[name] for name in names]


def whole(value, bits):
    need(type(value) is int and 0 <= value < 1 << bits)
    return value


def spelt(value, pattern):
    need(isinstance(value, str) and pattern.fullmatch(value))
    return value


def moment(value):
    seconds, fraction = TIME.fullmatch(spelt(value, TIME)).groups()
    try:
        datetime.strptime(seconds, "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        raise Malformed from None
    return seconds, (fraction or "").ljust(9, "0"), value


def heads(value):
    need(isinstance(value, list))
    found = []
    for each in value:
        stream, version, head = fields(each, "stream", "version", "hash")
        need(isinstance(stream, str) and 1 <= len(stream.encode()) <= 255)
        found.append((stream, whole(version, 64), spelt(head, HASH)))
    return found


def outermost(text):
    """The keys of the outermost object, each with its value, also if one is there twice."""
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: pairs)
    except ValueError:
        return None
    return found if found == [] or isinstance(found, list) and all(isinstance(p, tuple) for p in found) else None


def commit(record):
    """The commit in `record`. Raises Malformed or Halt."""
    need(all(byte >= 0x20 for byte in record))
    try:
        text = record.decode()
    except UnicodeDecodeError:
        raise Malformed from None
    pairs = outermost(text)
    rules = [value for name, value in pairs or [] if name == "rule"]
    if len(rules) == 1 and type(rules[0]) is int and 0 <= rules[0] < 1 << 32 and rules[0] != RULE:
        raise Halt(rules[0])
    try:
        value = strict(text)
    except ValueError:
        raise Malformed from None
    need(len(record) <= COMMIT_BYTES_MAX)
    names = "rule", "id", "command", "time", "extends", "requires", "events", "about"
    rule, own, command, time, extends, requires, events, _ = fields(value, *names)
    need(whole(rule, 32) == RULE)
    command_id, command_hash = fields(command, "id", "hash")
    spelt(command_hash, HASH)
    found = {
        "id": spelt(own, UUID),
        "command": spelt(command_id, UUID),
        "time": moment(time),
        "extends": heads(extends),
        "requires": heads(requires),
        "events": [],
    }
    need(isinstance(events, list))
    for event in events:
        stream, kind, version, _ = fields(event, "stream", "type", "v", "data")
        need(isinstance(stream, str) and isinstance(kind, str))
        whole(version, 16)
        found["events"].append((stream, kind))
    moved = [stream for stream, _, _ in found["extends"]]
    named = moved + [stream for stream, _, _ in found["requires"]]
    need(moved and events and len(set(named)) == len(named))
    need(all(stream in moved for stream, _ in found["events"]))
    return found


def canonical(record):
    """The bytes that stand for a record on every carrier."""
    try:
        commit(record)
    except Malformed:
        return record if is_stub(record) else stub(record)
    except Halt:
        pass
    return record


def is_stub(record):
    found = re.fullmatch(rb'\{"malformed":\{"sha256":"[0-9a-f]{64}","len":(0|[1-9][0-9]*)\}\}', record)
    return bool(found) and int(found[1]) < 1 << 64


# The rule.


class Ruler:
    def __init__(self):
        self.heads, self.commands, self.leaves, self.time, self.sealed = {}, set(), [], None, False

    def judge(self, record):
        """Judges the next record: `counts`, or why it is void. Raises Halt, and remembers nothing then."""
        try:
            found = commit(record)
        except Malformed:
            found = None
        void = self.void(found)
        own = leaf(canonical(record))
        if not self.leaves and (void or [("ledger", "ledger.created")] != found["events"]):
            raise SystemExit("the first record makes no ledger")
        self.leaves.append(own)
        if void:
            return void
        self.time = max(self.time or found["time"], found["time"])
        self.commands.add(found["command"])
        for stream, version, _ in found["extends"]:
            self.heads[stream] = version + 1, own.hex()
            self.sealed |= stream == "ledger" and version >= 1
        return "counts"

    def void(self, found):
        if found is None:
            return "malformed"
        if found["command"] in self.commands:
            return "duplicate"
        if self.sealed:
            return "sealed"
        voids = {self.differs(*head) for head in found["extends"] + found["requires"]}
        return "fork" if "fork" in voids else "stale" if "stale" in voids else None

    def differs(self, stream, version, named):
        known, own = self.heads.get(stream, (0, NO_HASH))
        if version < known:
            return "stale"
        return "fork" if version > known or named != own else None


# The record in Kafka.


def taken(key, headers, value):
    """The bytes that a Kafka record is taken for, given its headers as pairs of name and value."""
    value = value or b""
    try:
        found = commit(value)
    except Malformed:
        return canonical(value)
    except Halt as halt:
        kinds = [told for name, told in headers if name == "ce_type"]
        number = TYPE.fullmatch((kinds[0] or b"").decode(errors="replace")) if len(kinds) == 1 else None
        agrees = number and int(number[1]) == halt.args[0] > RULE
        return value if agrees else stub(value)
    subject = found["extends"][0][0]
    told = [
        ("ce_specversion", "1.0"),
        ("ce_id", found["id"]),
        ("ce_source", "/ionledger"),
        ("ce_type", f"ionledger.commit.v{RULE}"),
        ("ce_time", found["time"][2]),
        ("ce_subject", subject),
        ("content-type", "application/json"),
    ]
    agrees = key == subject.encode() and headers == [(name, text.encode()) for name, text in told]
    return value if agrees else stub(value)


# The vectors.


def bytes_of(text, digits, pad=0):
    return (bytes.fromhex(digits) if text is None else text.encode()) + b" " * pad


def check_log(vectors):
    ruler = Ruler()
    for vector in vectors:
        record = bytes_of(vector.get("text"), vector.get("hex"), vector.get("pad", 0))
        try:
            verdict = ruler.judge(record)
        except Halt as halt:
            assert vector["verdict"] == f"halt {halt.args[0]}", vector["name"]
            continue
        wanted = vector["verdict"], vector["leaf"], vector["time"], vector["root"]
        judged = verdict, ruler.leaves[-1].hex(), ruler.time[2], root(ruler.leaves).hex()
        assert judged == wanted, f"{vector['name']}: {judged}"


def check_kafka(vectors):
    for vector in vectors:
        text = lambda name: None if vector.get(name) is None else vector[name].encode()
        value = text("value")
        headers = [(name, None if told is None else told.encode()) for name, told in vector["headers"]]
        found = taken(text("key"), headers, value)
        wanted = {"the value": value or b"", "its stub": stub(value or b"")}[vector["taken_for"]]
        assert found == wanted, f"{vector['name']}: {found}"


if __name__ == "__main__":
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as lines:
            vectors = [json.loads(line) for line in lines]
        (check_log if "verdict" in vectors[0] else check_kafka)(vectors)
        print(f"{path}: {len(vectors)} vectors hold")
