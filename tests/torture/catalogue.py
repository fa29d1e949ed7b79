"""The faults by number (the catalogue of the torture test), and the labels under which the providers count them.

A label is `name@point` with the parameters that were given, as `observed()["faults_fired_at"]` tells it; a scenario
counts what it does itself under the number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Fault:
    """`slow`: one of them takes more than a second of scaled time. `labels` are patterns."""

    what: str
    labels: tuple[str, ...] = ()
    slow: bool = False


def _quick(what: str, *labels: str) -> Fault:
    return Fault(what, labels)


def _slow(what: str, *labels: str) -> Fault:
    return Fault(what, labels, slow=True)


FAULTS: Mapping[str, Fault] = {
    # the network
    "F01": _quick("connection refused"),
    "F02": _slow("a connection that nobody answers"),
    "F03": _quick("no such host"),
    "F04": _slow("a resolver that hangs"),
    "F05": _quick("a name that leads to a private address"),
    "F06": _quick("a certificate that proves nothing"),
    "F07": _quick("TLS cut off in the handshake"),
    "F08": _quick("reset before the request is read", "lost_request@submit*how=reset*", "outage@submit*how=reset*"),
    "F09": _quick("closed when the request was read", "lost_request@submit", "lost_request@submit*how=close*"),
    "F10": _quick("reset after the charge", "lost_answer@submit*"),
    "F11": _slow("no answer at all", "hang@submit*"),
    "F12": _slow("headers trickle", "slow_body@submit*part=headers*"),
    "F13": _slow("the body trickles", "slow_body@submit", "slow_body@submit*part=body*", "slow_body@submit:seconds=*"),
    "F14": _quick("an idle connection is closed", "closes_idle@*"),
    "F15": _slow("a half-open connection", "hang@poll*", "hang@list*"),
    "F16": _slow("latency", "latency@*"),
    "F17": _slow("a slow download", "slow_download@*"),
    "F18": _quick("one byte a segment", "one_byte_segments@*"),
    "F19": _quick("a proxy's 502 in HTML", "html_502@*"),
    "F22": _quick("proxies and a log of TLS keys in the environment"),
    # HTTP
    "F23": _quick("303 to a submission", "redirect@submit", "redirect@submit*status=30[123]*"),
    "F24": _quick("307 to another origin", "redirect@submit*status=30[78]*"),
    "F25": _quick("a loop of redirects at a download", "loop@*"),
    "F26": _quick("a download is sent to file: or ftp:", "redirect@download*"),
    "F27": _slow("429 with Retry-After", "rate_limited@*retry_after=*"),
    "F28": _quick("429 without headers", "rate_limited@submit", "rate_limited@poll"),
    "F30": _quick("103, then the answer", "early_hints@*"),
    "F31": _quick("an empty answer", "empty_200@*"),
    "F32": _quick("shorter than announced", "truncated@*how=length*"),
    "F33": _quick("cut inside the JSON", "truncated@submit", "truncated@poll", "truncated@*how=close*"),
    "F34": _quick("a gzip bomb", "huge_body@*gzip=*"),
    "F35": _quick("JSON without end", "huge_body@submit", "huge_body@poll", "huge_body@*:bytes=*"),
    "F36": _quick("ten thousand headers", "many_headers@*"),
    "F37": _quick("another encoding", "bad_encoding@*"),
    "F38": _quick("an error in a 200", "error_before_charge@submit*status=200*"),
    "F39": _quick("500 after the charge", "error_after_charge@submit*"),
    "F40": _quick("500 before the charge", "error_before_charge@submit", "error_before_charge@submit*status=5*"),
    "F41": _slow("503 for half an hour", "outage@*"),
    "F42": _slow("a key is revoked, and replaced"),
    "F43": _quick("403 of three kinds"),
    "F44": _slow("credits run out and are topped up"),
    # what answers mean
    "F47": _quick("an unknown status", "unknown_status@*", "respelled_status@*"),
    "F49": _quick("progress that is none", "odd_progress@*"),
    "F51": _quick("one task id twice", "same_id@*", "wrong_task@submit*"),
    "F52": _slow("success without outputs", "no_output@*"),
    "F55": _quick("some of the outputs", "partial@*"),
    "F56": _slow("a late refund", "late_refund@*"),
    "F57": _slow("a refund that is not the charge", "*@submit*refund=*"),
    "F58": _quick("a charge that is not the price", "overcharged@*"),
    "F60": _slow("a task that never ends", "stuck@*"),
    "F61": _slow("a review of two hours", "review@*"),
    "F62": _quick("cancelled at the provider", "cancelled@*"),
    "F64": _quick("404 for a task", "poll_404@*"),
    "F65": _slow("accepted after we gave up waiting", "late_accept@*"),
    "F66": _slow("idempotency keys mean nothing"),
    "F67": _slow("back after the key's window"),
    "F68": _quick("409: another body under the key"),
    "F69": _slow("409: still being accepted"),
    "F71": _slow("callbacks lost, late, twice, forged", "callback_*"),
    "F72": _slow("the key of another account"),
    # downloads
    "F73": _quick("an address that has expired", "expired_url@*"),
    "F74": _quick("200 to a Range", "ignore_range@*"),
    "F75": _quick("another Range than asked for", "wrong_range@*"),
    "F77": _quick("another ETag", "changed_etag@*"),
    "F79": _quick("another length than announced", "short_media@*", "cut_media@*", "long_media@*"),
    "F80": _quick("HTML for a video", "html_media@*", "wrong_type@*"),
    "F81": _quick("an empty file", "empty_media@*"),
    "F82": _quick("flipped bytes", "corrupt_media@*"),
    "F83": _slow("a file without end", "endless@*"),
    "F85": _quick("a name that leads away", "evil_name@*"),
    # disk and database
    "F86": _slow("disk full at the brink"),
    "F87": _slow("disk full in a download"),
    "F88": _slow("disk full when the task id is stored"),
    "F90": _quick("a folder that cannot be written"),
    "F91": _slow("no more files can be opened; names too long"),
    "F92": _slow("another program locks the queue"),
    "F94": _quick("a corrupt page, a cut WAL"),
    "F95": _quick("a queue of another version"),
    "F96": _slow("a hundred runs at once"),
    "F97": _quick("a place that is not safe"),
    "F98": _quick("outputs deleted, edited, replaced by links"),
    # the process and time
    "F100": _quick("SIGTERM"),
    "F101": _quick("SIGINT"),
    "F102": _quick("the signal twice"),
    "F103": _quick("SIGHUP"),
    "F104": _quick("SIGKILL"),
    "F105": _slow("stopped and continued"),
    "F106": _slow("the clock jumps"),
    "F108": _slow("too little memory"),
    "F110": _quick("stdout is closed"),
    "F111": _slow("ten thousand held jobs"),
    "F112": _slow("sixty restarts in a minute"),
    "F113": _slow("upgraded between crash and resume"),
    "F114": _slow("the manifest is edited between crash and resume"),
}  # fmt: skip
SIGNALS = {"SIGTERM": "F100", "SIGINT": "F101", "SIGHUP": "F103", "SIGKILL": "F104", "SIGSTOP": "F105"}


@dataclass(frozen=True)
class Fired:
    counts: Mapping[str, int]

    @property
    def unfired(self) -> list[str]:
        return [number for number, count in self.counts.items() if count == 0]

    def seldom(self, enough: int) -> list[str]:
        """The quick ones that fired less than so often, but did."""
        return [number for number, count in self.counts.items() if 0 < count < enough and not FAULTS[number].slow]


def numbered(labels: Mapping[str, int]) -> Fired:
    """How often each fault of the catalogue fired, from counts by label or number."""
    counts = Counter[str]()
    for label, count in labels.items():
        for number in numbers(label):
            counts[number] += count
    return Fired({number: counts[number] for number in FAULTS})


def numbers(label: str) -> list[str]:
    """The faults that a label stands for; a struck request may have met one of the wire and one of fate."""
    if label in FAULTS:
        return [label]
    return [number for number, fault in FAULTS.items() if any(fnmatchcase(label, each) for each in fault.labels)]


def of_signal(name: str) -> str:
    """The number of a signal by its name; "SIGINT+SIGINT" is one sent twice."""
    return "F102" if "+" in name else SIGNALS[name]
