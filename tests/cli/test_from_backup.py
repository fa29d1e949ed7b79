"""A backup does not know what was ordered since it was made: it is not worked on before a person has said so."""

from __future__ import annotations

from pathlib import Path

from cli.kit import parsed, place, states

MANIFEST = """\
version: 1
batch: night
defaults: {provider: happyhorse, model: nano-banana-2}
jobs:
  fox: {prompt: a fox in the snow}
  owl: {prompt: an owl in the snow}
"""


def test_nothing_is_ordered_from_a_backup_before_a_person_has_said_so(tmp_path: Path) -> None:
    with place(tmp_path, {"happyhorse": "happyhorse"}, seed="backup", render=4) as here:
        night, copy, second = here.write("night.yaml", MANIFEST), str(tmp_path / "copy.db"), str(tmp_path / "second.db")
        assert here.run(night, "--max-credits", "0").code == 6
        assert parsed(here.commands.run("backup", copy, "--json"))["jobs"] == 2
        assert here.run(night, "--max-credits", "1000").code == 0, "ordered since"
        assert here.commands.run("backup", second, "--db", copy).code == 0

        for queue in (copy, second):
            for words in ((night,), ()):
                refused = here.run(*words, "--db", queue)
                assert (refused.code, refused.out) == (2, ""), refused.said()
                assert "this queue is a backup of 20" in refused.err
                assert "--from-backup" in refused.err
            assert set(states(Path(queue)).values()) == {"queued"}
        assert here.commands.run("status", "--db", copy).code == 0
        assert "it is a backup of 20" in here.commands.run("doctor", "--db", copy).out
        assert "backup" not in here.commands.run("doctor").out
        assert len(here.tasks("happyhorse")) == 2

        assert here.commands.run("cancel", "1", "2", "--db", copy).code == 0
        assert here.run("--from-backup", "--db", copy).code == 0
        assert here.run("--db", copy).code == 0, "it is the queue now"
        assert len(here.tasks("happyhorse")) == 2, "nothing was paid twice"
