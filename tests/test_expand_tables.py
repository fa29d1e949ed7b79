"""Rows from files: what a table may look like, and what its texts become."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import SEEDANCE, codes_of, orders_of, write, yaml_of

from runner.errors import InputError, Place
from runner.expand import orders, survey
from runner.expand.tables import Rows, rows_of
from runner.expand.tables import _similar as similar
from runner.manifest import read_manifest
from runner.manifest.findings import Findings
from runner.providers import registry

JOB = {**SEEDANCE, "prompt": "a scene"}


def read(folder: Path, name: str, content: str | bytes) -> tuple[Rows, Findings]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    manifest = read_manifest(write(folder, yaml_of({"a": {**JOB, "rows": name}})))
    found = Findings(manifest.source)
    rows = rows_of(manifest, manifest.jobs["a"], found)
    assert rows is not None, found.problems()
    return rows, found


def texts(folder: Path, name: str, content: str | bytes) -> list[dict[str, str]]:
    rows, found = read(folder, name, content)
    values = [dict(row.values) for row in rows]
    assert not found.problems()
    return values


EXPECTED = [{"shot": "s1", "scene": "a neon alley, in the rain"}, {"shot": "007", "scene": 'a "rooftop"'}]


@pytest.mark.parametrize(
    "content",
    [
        'shot,scene\ns1,"a neon alley, in the rain"\n007,"a ""rooftop"""\n',
        'shot;scene\r\ns1;a neon alley, in the rain\r\n007;"a ""rooftop"""\r\n',
        'shot\tscene\ns1\ta neon alley, in the rain\n007\t"a ""rooftop"""',
        '\ufeffshot , scene\n\ns1,"a neon alley, in the rain"\n\n007,"a ""rooftop"""\n',
    ],
    ids=["comma", "semicolon-crlf", "tab", "byte-order-mark-and-blank-lines"],
)
def test_csv(content: str, tmp_path: Path) -> None:
    assert texts(tmp_path, "t.csv", content) == EXPECTED


def test_a_cell_may_run_over_lines_and_its_row_stands_where_it_begins(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "t.csv", 'shot,scene\ns1,"first\nsecond"\n\ns2,third\n')
    found = [(row.values["scene"], row.where) for row in rows]
    name = str(tmp_path / "t.csv")
    assert found == [("first\nsecond", Place(name, 2, 1)), ("third", Place(name, 5, 1))]


def test_a_table_of_one_column_needs_no_delimiter(tmp_path: Path) -> None:
    assert texts(tmp_path, "t.csv", "scene\na neon alley; at night\n") == [{"scene": "a neon alley; at night"}]


def test_lines_of_text_are_prompts_and_blank_ones_are_skipped(tmp_path: Path) -> None:
    content = "\ufeffa neon alley\r\n\r\n  a rooftop, ${at} $dawn  \n"
    assert texts(tmp_path, "t.txt", content) == [{"prompt": "a neon alley"}, {"prompt": "a rooftop, ${at} $dawn"}]


def test_json_lines_keep_their_texts(tmp_path: Path) -> None:
    content = '{"a": "x", "n": 1.50, "i": 007}\n'.replace("007", "7")
    content += '{"a": null, "t": true, "f": false, "big": 123456789012345678901234567890, "e": 1E3}\n\n'
    assert texts(tmp_path, "t.jsonl", content) == [
        {"a": "x", "n": "1.50", "i": "7"},
        {"t": "true", "f": "false", "big": "123456789012345678901234567890", "e": "1E3"},
    ]


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_whatever_csv_writes_is_read_back(rows: list[tuple[str, str]], delimiter: str) -> None:
    import tempfile

    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("one", "two"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        found = [(row["one"], row["two"]) for row in texts(Path(folder), "t.csv", text.getvalue())]
    assert found == rows


def test_what_a_value_contains_is_never_read_again_T15(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('scene\n"${key} $$ {0.__class__} %s"\n')
    [order] = orders_of(tmp_path, {"a": {**SEEDANCE, "prompt": "${scene}", "rows": "t.csv"}})
    assert order.fields["prompt"] == "${key} $$ {0.__class__} %s"
    assert order.variables == {"scene": "${key} $$ {0.__class__} %s"}


def refusal(folder: Path, job: dict[str, object]) -> InputError:
    manifest = read_manifest(write(folder, yaml_of({"a": job})))
    with pytest.raises(InputError) as refused:
        list(orders(manifest, registry(), survey(manifest, registry())))
    return refused.value


def test_B59_no_link_leads_out_of_the_folder_T10(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "t.csv").write_text("scene\nx\n")
    (inside / "t.csv").symlink_to(outside / "t.csv")
    (inside / "folder").symlink_to(outside)
    for name in ("t.csv", "folder/t.csv", "../outside/t.csv", str(outside / "t.csv")):
        assert codes_of(refusal(inside, {**JOB, "rows": name})) == ["B59"]


def test_B02_a_pipe_is_not_waited_for_T10(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    assert codes_of(refusal(tmp_path, {**JOB, "rows": "t.csv"})) == ["B02"]


def test_B68_lines_have_an_end(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("x" * 1_000_001)
    assert codes_of(refusal(tmp_path, {**JOB, "rows": "t.txt"})) == ["B68"]
    (tmp_path / "t.csv").write_text("scene\n" + "x" * 200_000 + "\n")
    assert codes_of(refusal(tmp_path, {**JOB, "rows": "t.csv"})) == ["B68"]
    (tmp_path / "t.jsonl").write_text("[" * 100_000 + "\n")
    assert codes_of(refusal(tmp_path, {**JOB, "rows": "t.jsonl"})) == ["B68"]


def test_B26_the_place_of_a_wrong_byte_is_told_far_into_a_table(tmp_path: Path) -> None:
    lines = [f"scene number {n}, näher".encode() for n in range(20_000)]
    lines[15_000] = b"caf\xe9"
    (tmp_path / "t.txt").write_bytes(b"\n".join(lines))
    error = refusal(tmp_path, {**SEEDANCE, "prompt": "${prompt}", "rows": "t.txt"})
    [place] = [problem.place for problem in error.problems if problem.code == "B26"]
    assert place is not None
    assert (place.line, place.column) == (15_001, 4)


def test_unused_columns_are_variables_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("scene,note,model\na neon alley,later,x\n")
    [order] = orders_of(tmp_path, {"a": {**SEEDANCE, "prompt": "${scene}", "rows": "t.csv"}})
    assert order.variables == {"scene": "a neon alley", "note": "later", "model": "x"}
    assert order.model == "seedance"


def test_a_manifest_is_not_proposed_as_its_own_table(tmp_path: Path) -> None:
    (tmp_path / "shots.yaml").touch()
    assert "did you mean" not in similar(tmp_path / "shots.csv", "shots.yaml")
    (tmp_path / "shot.csv").touch()
    assert similar(tmp_path / "shots.csv", "shots.yaml") == 'did you mean "shot.csv"?'
