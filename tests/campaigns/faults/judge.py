"""The judge of a campaign: compares the API server's audit log and the channels' calls with the guarantees."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from reconciler.meta.documents import parse_time
from reconciler.testing.control_plane.plane import AuditRecord
from tests.campaigns.faults import channels
from tests.campaigns.faults.campaign import ATTEMPTS, LEASE, Campaign
from tests.campaigns.faults.replica import ProcessLife

TOLERANCE = 1.0
"""Seconds: the operator compares with the API server's time, which it knows to a second."""

MOST_WRITES = {"AtLeastOnce": 1, "Bounded": 2, "AtMostOnce": 2}
"""Status writes of one reconcile: the two guarantees that count an attempt before it is made write twice."""


@dataclass
class Write:
    """A status write that took effect.

    Attributes:
        attempts: the attempts stored by then.
        due: for each channel, the time before which there must be no attempt.
    """

    time: float
    user: str
    attempts: set[tuple[str, int]]
    due: dict[str, float]


@dataclass
class Verdict:
    """The result of a campaign.

    Attributes:
        figures: what was done, how often, and the outcome; for the table.
        wrong: broken guarantees; must be empty.
    """

    figures: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Judge:
    """A judge that compares the traces of a campaign with the guarantees."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self._calls = channels.calls(campaign.directory / "calls")
        self._lives = {life.pid: life for replica in campaign.replicas for life in replica.lives}
        self._users = {life.pid: replica.user for replica in campaign.replicas for life in replica.lives}
        self._guarantee = {each["metadata"]["name"]: each["spec"]["delivery"] for each in campaign.found}
        audit = campaign.plane.audit()
        self._writes = self._status_writes(audit)
        self._leases = [each for each in audit if _is_lease_write(each)]
        self._verdict = Verdict()

    def judge(self) -> Verdict:
        campaign, figures = self._campaign, self._verdict.figures
        processes = [life for replica in campaign.replicas for life in replica.lives]
        figures |= {f"times: {fault}": count for fault, count in sorted(campaign.done.items())}
        figures["requests"] = len(campaign.found)
        figures["operator processes"] = len(processes)
        figures["changes of the leader"] = self._leader_changes()
        figures["calls of channels"] = sum(call["what"] == "call" for call in self._calls)
        figures["attempts recorded"] = sum(len(each["status"]["deliveryAttempts"]) for each in campaign.found)
        figures["status writes"] = sum(map(len, self._writes.values()))
        self._lost()
        self._repeated()
        self._early()
        self._two_writers()
        self._writes_per_cycle()
        if any(code != 0 for code in campaign.exit_codes):
            self._wrong(f"the operators ended with {campaign.exit_codes}")
        return self._verdict

    def _wrong(self, text: str) -> None:
        self._verdict.wrong.append(text)

    # Nothing lost

    def _lost(self) -> None:
        lost = self._campaign.requests - len(self._campaign.found)
        said = {
            (each["request"], each["channel"], each["attempt"]) for each in self._calls if each["what"] == "delivered"
        }
        undelivered = 0
        for each in self._campaign.found:
            name, status = each["metadata"]["name"], each["status"]
            for channel in status["channels"]:
                mine = [entry for entry in status["deliveryAttempts"] if entry["channel"] == channel["name"]]
                if [entry["attempt"] for entry in mine] != list(range(1, len(mine) + 1)) or len(mine) > ATTEMPTS:
                    self._wrong(f"{name}/{channel['name']}: the attempts are {mine}")
                if len(mine) != channel["attempts"]:
                    self._wrong(f"{name}/{channel['name']}: {channel['attempts']} counted, {len(mine)} recorded")
                won = [entry["attempt"] for entry in mine if entry["result"] == "success"]
                if (channel["state"] == "Delivered") != bool(won):
                    self._wrong(f"{name}/{channel['name']} is {channel['state']} with {mine}")
                if any((name, channel["name"], number) not in said for number in won):
                    undelivered += 1
                    self._wrong(f"{name}/{channel['name']} is said to be delivered and is not")
        self._verdict.figures |= {"requests lost": lost, "deliveries recorded but not made": undelivered}
        if lost:
            self._wrong(f"{lost} requests are lost")

    # Bounds

    def _repeated(self) -> None:
        """Check calls that were made more than once against each guarantee."""
        made: dict[tuple[str, str, int, int], list[dict[str, Any]]] = defaultdict(list)
        for call in self._calls:
            if call["what"] == "call":
                made[call["request"], call["channel"], call["attempt"], self._epoch(call["time"])].append(call)
        repeated = same = unfounded = 0
        deferred = {_attempt(call) for call in self._calls if call["what"] == "failed"}
        for (name, channel, attempt, _), calls in made.items():
            for first, second in pairwise(calls):
                if first["process"] == second["process"]:
                    # An attempt that the receiver deferred counts as the same attempt when repeated.
                    if (name, channel, attempt) not in deferred:
                        same += 1
                        self._wrong(f"one process made the same attempt twice: {first}, {second}")
                    continue
                if (name, channel, attempt) in deferred and self._ended_between(first, second):
                    continue
                repeated += 1
                if self._guarantee[name] != "AtLeastOnce":
                    unfounded += 1
                    self._wrong(f"{self._guarantee[name]} made an attempt twice: {first}, {second}")
                elif not self._interrupted(first, second["time"]):
                    unfounded += 1
                    self._wrong(f"a call was repeated without a fault: {first}, {second}")
        self._verdict.figures |= {
            "calls repeated after a fault (AtLeastOnce)": repeated - unfounded,
            "calls repeated without cause": unfounded + same,
        }

    def _ended_between(self, first: dict[str, Any], second: dict[str, Any]) -> bool:
        return any(
            call["what"] == "failed" and first["time"] <= call["time"] <= second["time"]
            for call in self._calls
            if _attempt(call) == _attempt(first)
        )

    def _interrupted(self, call: dict[str, Any], until: float) -> bool:
        """Return whether the process of a call ended, or was stopped, before the call was repeated."""
        life: ProcessLife = self._lives[call["process"]]
        return life.ended <= until or any(began <= until for began, _ in life.stopped)

    # No attempt early

    def _early(self) -> None:
        early = 0
        for call in self._calls:
            if call["what"] != "call":
                continue
            stored = self._stored(call["request"], call["time"])
            due = stored.due.get(call["channel"]) if stored is not None else None
            if due is not None and call["time"] < due - TOLERANCE:
                early += 1
                self._wrong(f"{due - call['time']:.2f} s early: {call}")
        self._verdict.figures["attempts before their due time"] = early

    def _stored(self, name: str, moment: float) -> Write | None:
        """Return the write that created the status stored at a point in time."""
        restore = next((each for each in reversed(self._campaign.restores) if each.ended <= moment), None)
        found = None
        for write in self._writes[name]:
            if write.time > moment:
                break
            if restore is None or not restore.snapshot < write.time < restore.ended:
                found = write
        return found

    # One writer

    def _two_writers(self) -> None:
        """Find status writes of a process that did not hold the lease when the server received them."""
        strangers = 0
        for name, writes in self._writes.items():
            for write in writes:
                holder = self._holder(write.time)
                if holder is not None and holder != write.user:
                    strangers += 1
                    self._wrong(f"{write.user} wrote {name} at {write.time}, when {holder} had the lease")
        self._verdict.figures["status writes by one that did not lead"] = strangers

    def _holder(self, moment: float) -> str | None:
        last = None
        for lease in self._leases:
            if _seconds(lease.received) > moment:
                break
            last = lease
        return None if last is None else last.user

    def _leader_changes(self) -> int:
        users = [lease.user for lease in self._leases if _holds(lease)]
        return sum(one != other for one, other in pairwise(users))

    # One write per reconcile

    def _writes_per_cycle(self) -> None:
        """Find reconciles whose attempts were stored by more writes than their guarantee allows."""
        cycle_of: dict[tuple[str, str, int], set[str]] = defaultdict(set)
        for call in self._calls:
            if call["what"] == "call":
                cycle_of[call["request"], call["channel"], call["attempt"]].add(call["cycle"])
        most: Counter[int] = Counter()
        too_many = 0
        for name, writes in self._writes.items():
            known: set[tuple[str, int]] = set()
            by_cycle: Counter[str] = Counter()
            for write in writes:
                new = write.attempts - known
                cycles = set.union(set(), *(cycle_of[name, channel, attempt] for channel, attempt in new))
                known = set(write.attempts)
                if len(cycles) == 1:  # else an attempt was made twice, and it is unknown which one was stored
                    by_cycle[cycles.pop()] += 1
            allowed = MOST_WRITES[self._guarantee.get(name, "AtMostOnce")]
            for cycle, count in by_cycle.items():
                most[count] += 1
                if count > allowed:
                    too_many += 1
                    self._wrong(f"{name}: {count} writes stored the attempts of the reconcile {cycle}")
        self._verdict.figures["reconciles with more status writes than promised"] = too_many

    # The audit log

    def _status_writes(self, audit: list[AuditRecord]) -> dict[str, list[Write]]:
        found: dict[str, list[Write]] = defaultdict(list)
        for record in audit:
            if record.resource != "notificationrequests" or record.subresource != "status" or record.code != 200:
                continue
            if record.verb not in ("patch", "update") or record.request_object is None:
                continue
            status = record.request_object.get("status") or {}
            before = found[record.name][-1] if found[record.name] else None
            found[record.name].append(_write(record, status, before))
        return found

    def _epoch(self, moment: float) -> int:
        return sum(restore.began <= moment for restore in self._campaign.restores)


def _write(record: AuditRecord, status: dict[str, Any], before: Write | None) -> Write:
    attempts = set(before.attempts) if before is not None else set()
    due = dict(before.due) if before is not None else {}
    if "deliveryAttempts" in status:
        attempts = {(entry["channel"], entry["attempt"]) for entry in status["deliveryAttempts"] or ()}
    if "channels" in status:
        due = {
            entry["name"]: _seconds(parse_time(entry["nextAttemptTime"]))
            for entry in status["channels"] or ()
            if entry.get("nextAttemptTime")
        }
    return Write(_seconds(record.received), record.user, attempts, due)


def _attempt(call: dict[str, Any]) -> tuple[str, str, int]:
    return call["request"], call["channel"], call["attempt"]


def _is_lease_write(record: AuditRecord) -> bool:
    if record.resource != "leases" or record.verb not in ("create", "update") or not 200 <= record.code < 300:
        return False
    document = record.request_object or {}
    return bool((document.get("metadata") or {}).get("name") == LEASE)


def _holds(record: AuditRecord) -> bool:
    return bool(((record.request_object or {}).get("spec") or {}).get("holderIdentity"))


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
