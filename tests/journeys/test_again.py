"""The same command again: nothing is ordered, nothing is paid, nothing is touched; what is gone comes back unpaid."""

from __future__ import annotations

from pathlib import Path

from torture.judge import judge
from torture.manifests import PROVIDERS, few
from torture.trial import Trial, trial


def standing(here: Trial) -> dict[Path, tuple[int, int]]:
    """Every file below the orders' folder, with its size and when it was last written."""
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in here.orders.folder.rglob("*") if p.is_file()}


def test_a_finished_batch_again_costs_nothing_and_changes_nothing(tmp_path: Path) -> None:
    with trial(tmp_path, PROVIDERS, seed="again", speed=100, render=20) as here:
        here.orders.grow(few(PROVIDERS))
        first = here.run_out()
        asked, bill, files, jobs = here.sandbox.requests(), here.sandbox.ledger(), standing(here), here.jobs()
        assert judge(here.evidence(first)).clean, str(judge(here.evidence(first)))
        assert first.code == 1, "two of the jobs are moderated"
        again = here.run()
        assert again.code == first.code, again.said()
        assert [each for each in here.sandbox.requests()[len(asked) :] if each["method"] != "GET"] == []
        assert here.sandbox.ledger()["charged"] == bill["charged"]
        assert here.sandbox.ledger()["refunded"] == bill["refunded"]
        assert standing(here) == files
        assert here.jobs() == jobs


def test_without_a_manifest_it_follows_what_is_queued(tmp_path: Path) -> None:
    with trial(tmp_path, PROVIDERS, seed="bare", speed=100, render=20) as here:
        here.orders.grow({"hh-video": 2, "sd-video": 2})
        here.run(RUNNER_FAILPOINT="request-sent:2")
        bare = here.commands.run("run", "--speed", "100", "--no-progress", "--db", here.queue)
        assert bare.code == 0, bare.said()
        evidence = here.evidence(bare)
        assert judge(evidence).clean, str(judge(evidence))
        assert [job.state for job in evidence.jobs] == ["succeeded"] * 4


def test_a_queue_deleted_in_despair_buys_nothing_twice_where_keys_are_honoured(tmp_path: Path) -> None:
    """The key of an order comes from batch, job and generation alone (design.md section 5.1)."""
    with trial(tmp_path, ("seedance2ai",), seed="despair", speed=100, render=20) as here:
        here.orders.grow({"sd-video": 2, "sd-image": 1})
        assert here.run().code == 0
        bill = here.sandbox.ledger()
        for path in [*tmp_path.glob("queue.db*")]:
            path.unlink()
        refused = here.start().wait()
        assert refused.code == 2, "the files tell that these were paid for"
        assert "this very render" in refused.err
        here.renders.rename(tmp_path / "moved")
        here.settle_in()
        again = here.run()
        assert again.code == 0, again.said()
        assert here.sandbox.ledger()["charged"] == bill["charged"]
        assert here.sandbox.tasks() == 3
        evidence = here.evidence(again)
        assert judge(evidence).clean, str(judge(evidence))


def test_a_queue_file_that_was_only_just_begun_is_no_obstacle(tmp_path: Path) -> None:
    """What a kill between the making of the file and its first commit leaves behind."""
    with trial(tmp_path, ("seedance2ai",), seed="empty", speed=100, render=20) as here:
        here.orders.grow({"sd-video": 1})
        Path(here.queue).touch(0o600)
        ended = here.run()
        assert ended.code == 0, ended.said()
