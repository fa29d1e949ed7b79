"""seegen, from its document (003): generation tasks, a standalone upscaler, reviewed assets, a balance, callbacks.

    orders      what createTask takes and costs, model by model
    upscales    what upscale/create takes and costs, and how it fails

No idempotency of any kind and no list of tasks: whoever lost an answer has the balance and the callback. 429 is about
tasks at once (`concurrency`, as the sandbox is set up), never about requests.

What the document leaves open and this file decides: an error's payload has one of four forms, by its code; a failed
task's `error` is a text, a moderated one's an object; `credits` is the balance and what is held for tasks in flight,
`availableCredits` the balance; a field no table names is ignored and remarked upon; assets of others are refused as
tasks of others are; the list of assets goes from the newest backwards, its cursor being the last number shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...assets import Asset
from ...callbacks import callback_url
from ...clock import iso
from ...credits import number
from ...dialect import Answer, Call, Desk, Dialect, Refusal, Route
from ...parameters import Field, Invalid, one_of, read, text, url
from ...tasks import QUEUED_SHARE, Order, Stage, Task
from . import upscales
from .orders import ASSET, MODELS

TASK = (
    Field("model", one_of(*MODELS), required=True),
    Field("inputs", lambda name, value, own_media: value, required=True),
    Field("callBackUrl", callback_url),
)
UPSCALE = (*upscales.CREATE, Field("callBackUrl", callback_url))
KINDS = ("IMAGE", "AUDIO", "VIDEO")
STATUSES = ("PROCESSING", "ACTIVE", "FAILED")
UPLOAD = (
    Field("url", url, required=True),
    Field("type", one_of(*KINDS), required=True),
    Field("name", text(0, 64)),
)
PAGE, LARGEST_PAGE = 20, 50


class Seegen(Dialect):
    name = "seegen"
    example_key = "sg_sandbox_"
    task_prefix = {"video": "task_", "image": "task_"}  # noqa: RUF012 (declared ClassVar in Dialect)
    rate_limit = 0
    strict = False
    codes = {  # noqa: RUF012
        "unauthorized": ("unauthorized", 401),
        "invalid": ("invalid_parameters", 400),
        "insufficient_credits": ("insufficient_credits", 402),
        "denied": ("access_denied", 403),
        "rate_limited": ("concurrency_limit_reached", 429),
        "not_found": ("task_not_found", 404),
        "internal": ("internal_error", 500),
        "unavailable": ("service_unavailable", 503),
    }

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", "/api/v1/jobs/createTask", "submit", self._create),
            Route("GET", "/api/v1/jobs/queryTask", "poll", self._query),
            Route("GET", "/api/v1/account/credits", "credits", self._credits),
            Route("POST", "/api/v1/upscale/create", "submit", self._create_upscale),
            Route("GET", "/api/v1/upscale/query", "poll", self._query_upscale),
            Route("POST", "/api/v1/assets/upload", "upload", self._upload),
            Route("GET", "/api/v1/assets/status", "poll", self._asset),
            Route("GET", "/api/v1/assets/list", "list", self._assets),
        )

    def error(self, code: str, message: str) -> Any:
        """No document shows an error: the four forms that such services have, one a code."""
        match code:
            case "access_denied":
                return {"error": message}
            case "task_not_found":
                return {"message": message}
            case "concurrency_limit_reached":
                return {"code": code, "message": message}
            case _:
                return {"error": {"code": code, "message": message}}

    def asked_task(self, match: Mapping[str, str], query: Mapping[str, str]) -> str:
        return query.get("taskId", "")

    # -- generation -------------------------------------------------------------------------------------------------

    def _create(self, call: Call) -> Answer:
        given = self.values(call, TASK)
        table, make = MODELS[given["model"]]
        inputs = read(table, given["inputs"], call.desk.signer.origin, strict=False)
        for name in sorted(set(given["inputs"]) - set(inputs)):
            detail = f"{call.path}: inputs.{name} of {given['model']}"
            call.desk.journal.remark(call.now, "violation", self.name, "undocumented_field", detail)
        order = make(given["model"], inputs, lambda reference, kind: self._resolved(call, reference, kind))
        task = self._begin(call, order, given["callBackUrl"])
        return Answer(200, {"taskId": task.id}, task_id=task.id)

    def _begin(self, call: Call, order: Order, callback: str | None, *, probed: bool = False) -> Task:
        task = self.order(call, order, probed=probed)
        if callback is not None:
            call.desk.callbacks.expect(task, callback)
        return task

    def _resolved(self, call: Call, reference: str, kind: str) -> str:
        """Where the file is. Raises Invalid where it is no active asset of this kind and account."""
        if not reference.startswith(ASSET):
            return reference
        asset = call.desk.assets.find(self.name, reference.removeprefix(ASSET))
        if asset is None or asset.account != call.account.account or reference != ASSET + asset.volc_id:
            raise Invalid(f"there is no asset {reference}")
        if asset.kind != kind:
            raise Invalid(f"{reference} is not of type {kind}")
        if asset.status(call.now) != "ACTIVE":
            raise Invalid(f"{reference} is not ACTIVE but {asset.status(call.now)}")
        return asset.url

    def _query(self, call: Call) -> Answer:
        task = self._own(call, upscale=False)
        return Answer(200, self._shown(task, call.now, self.files(call, task)), task_id=task.id)

    def _own(self, call: Call, *, upscale: bool) -> Task:
        """The task asked about. Raises Refusal where it is missing, another product's, or another account's."""
        task = call.desk.books.task(self.name, _required(call.query, "taskId"))
        if task is None or (task.endpoint == upscales.ENDPOINT) is not upscale:
            raise self.refusal("not_found", "Task not found.")
        if task.account != call.account.account:
            raise self._denied()
        return task

    def _denied(self) -> Refusal:
        return self.refusal("denied", "Access denied: you can only query your own tasks.")

    def told(self, desk: Desk, task: Task, now: float) -> Any:
        files = self.addresses(desk, task, now)
        show = self._shown_upscale if task.endpoint == upscales.ENDPOINT else self._shown
        return show(task, now, files)

    def _shown(self, task: Task, now: float, files: Sequence[str]) -> dict[str, Any]:
        stage, odd = task.stage(now), task.oddity(now)
        size = {name: task.details[name] for name in ("width", "height")}
        ended = stage.ended and not odd
        return {
            "taskId": task.id,
            "model": task.model,
            "status": odd or WORDS[stage],
            "creditsUsed": number(task.used(now)),
            "output": [{"url": each, **size} for each in files] if ended and stage is Stage.COMPLETED else None,
            "error": FAILURES.get(task.outcome, FAILURES["failed"]) if ended and stage is Stage.FAILED else None,
            "createTime": _epoch(task.created_at),
            "completeTime": _epoch(task.finishes_at) if ended else None,
        }

    def _credits(self, call: Call) -> Answer:
        held = call.desk.books.held(self.name, call.account.account)
        balance = call.account.balance
        return Answer(200, {"credits": number(balance + held), "availableCredits": number(balance)})

    # -- the standalone upscaler ------------------------------------------------------------------------------------

    def _create_upscale(self, call: Call) -> Answer:
        values = self.values(call, UPSCALE)
        order = upscales.upscale_order(values)
        task = self._begin(self._doomed(call, order), order, values["callBackUrl"], probed=True)
        shown = {"taskId": task.id, "orderId": f"order_{task.id.removeprefix('task_')}", "status": "validating"}
        return Answer(200, shown, task_id=task.id)

    def _doomed(self, call: Call, order: Order) -> Call:
        """The same call, but with the failure that its source asks for; a failed probe ends sooner."""
        problem = order.details["problem"]
        if problem is None:
            return call
        share = 1.0 if problem == upscales.AFTER_THE_PROBE else QUEUED_SHARE
        return replace(call, fate=replace(call.fate, outcome="failed", slowness=call.fate.slowness * share))

    def _query_upscale(self, call: Call) -> Answer:
        task = self._own(call, upscale=True)
        return Answer(200, self._shown_upscale(task, call.now, self.files(call, task)), task_id=task.id)

    def _shown_upscale(self, task: Task, now: float, files: Sequence[str]) -> dict[str, Any]:
        stage, odd, details = task.stage(now), task.oddity(now), task.details
        completed = stage is Stage.COMPLETED and not odd
        if stage is Stage.FAILED and not odd:
            code, message = upscales.failure(details, task.outcome)
            problem = {"code": code, "message": message}
            return {"taskId": task.id, "status": "failed", "creditsConsumed": None, "result": None, "error": problem}
        probed = {"probedDurationSeconds": float(details["seconds"]), "probedSourceResolution": details["size"]}
        return {
            "taskId": task.id,
            "status": odd or _upscale_word(stage, details["problem"]),
            "targetResolution": details["target"],
            "creditsConsumed": number(task.used(now)) if completed else None,
            "result": {"url": next(iter(files), None), **probed} if completed else None,
            "error": None,
            "createdAt": iso(task.created_at),
            "finishedAt": iso(task.finishes_at) if completed else None,
        }

    # -- assets -----------------------------------------------------------------------------------------------------

    def _upload(self, call: Call) -> Answer:
        values = self.values(call, UPLOAD)
        owner = (self.name, call.account.account)
        asset = call.desk.assets.add(*owner, values["type"], values["url"], values["name"], call.now)
        return Answer(200, _shown_asset(asset, call.now))

    def _asset(self, call: Call) -> Answer:
        asset = call.desk.assets.find(self.name, _required(call.query, "assetId"))
        if asset is None:
            raise self.refusal("not_found", "Asset not found.")
        if asset.account != call.account.account:
            raise self._denied()
        return Answer(200, _shown_asset(asset, call.now))

    def _assets(self, call: Call) -> Answer:
        limit = _whole(call.query, "limit", PAGE, LARGEST_PAGE)
        found = call.desk.assets.page(
            self.name,
            call.account.account,
            call.as_of,
            kind=_one_of(call.query, "type", KINDS),
            status=_one_of(call.query, "status", STATUSES),
            before=_whole(call.query, "cursor", 10**15, 10**15),
            limit=limit + 1,
        )
        shown = found[:limit]
        after = shown[-1].id if len(found) > limit else None
        return Answer(200, {"items": [_shown_asset(each, call.as_of) for each in shown], "nextCursor": after})


def _shown_asset(asset: Asset, moment: float) -> dict[str, Any]:
    status = asset.status(moment)
    return {
        "assetId": asset.id,
        "volcAssetId": asset.volc_id,
        "type": asset.kind,
        "status": status,
        "failReason": asset.refusal if status == "FAILED" else None,
        "url": asset.url,
        "name": asset.name,
        "createdAt": _epoch(asset.created_at),
    }


def _upscale_word(stage: Stage, problem: str | None) -> str:
    if problem not in (None, upscales.AFTER_THE_PROBE):
        return "validating"
    return {Stage.QUEUED: "validating"}.get(stage, stage.value)


def _epoch(moment: float) -> int:
    """Milliseconds since 1970."""
    return round(moment * 1000)


def _required(query: Mapping[str, str], name: str) -> str:
    if not query.get(name):
        raise Invalid(f"{name} is required")
    return query[name]


def _whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    given = query.get(name, str(default))
    if not given.isdecimal() or len(given) > 16 or not 1 <= int(given) <= most:
        raise Invalid(f"{name} must be a number from 1 to {most}")
    return int(given)


def _one_of(query: Mapping[str, str], name: str, allowed: Sequence[str]) -> str | None:
    given = query.get(name)
    if given is not None and given not in allowed:
        raise Invalid(f"{name} must be one of: {', '.join(allowed)}")
    return given


WORDS = {
    Stage.QUEUED: "PENDING",
    Stage.PROCESSING: "PROCESSING",
    Stage.REVIEW: "PROCESSING",
    Stage.COMPLETED: "COMPLETED",
    Stage.FAILED: "FAILED",
}
FAILURES: Mapping[str, Any] = {
    "cancelled": "The task was cancelled.",
    "failed": "The upstream model could not render this request.",
    "moderated": {"code": "content_moderated", "message": "The result was blocked by the content safety policy."},
}
PROVIDER = Seegen()
