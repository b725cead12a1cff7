"""Tables of the documents beside the scores that are kept: equal to the digit, and anybody's scores beside them."""

import csv
import json
import lzma
import shutil
import types

import numpy as np
import pytest

from benchmarks import ablation, kept_scores, real, tables
from configs import msddf
from configs import real as real_rows
from configs.ablations import base
from msddf_jax.data.methods import METHODS
from msddf_jax.evaluators import detection
from msddf_jax.statistics import metrics

EVALS = tuple(msddf.get_config("demo").evals)
# Three reals, then three fakes, a frame each. AUC (3 + 3 + 1) / 9.
SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.15)


def _workdir(folder, scores=SCORES, names="abcdef", seed=3):
    """An evaluated workdir whose evals are all alike; rows not in the order of their names."""
    method = METHODS.index("toy_swap")
    labels = np.repeat([0, 1], 3).astype(np.int32)
    keys = [f"toy/c23/{METHODS[method * label]}/{name}" for label, name in zip(labels.tolist(), names, strict=True)]
    rows = {
        "video_key": np.array(keys),
        "method": labels * method,
        "frame_index": np.full(6, 7, np.int32),
        "label": labels,
        "score": np.array(scores, np.float32),
        "file": np.array(keys),
    }
    for name in EVALS:
        detection.write_scores(folder / "scores" / f"{name}.csv", {key: value[::-1] for key, value in rows.items()})
    versions = {"commit": "abcdef0123", "jaxlib": "1.2", "device": "toy"}
    about = {"step": 5, "aggregate": "mean", "versions": versions}
    (folder / "results.json").write_text(json.dumps({"_about": about}))
    (folder / "config.json").write_text(json.dumps({"seed": seed, "steps": 9, "data": {"data_dir": str(folder)}}))
    return folder


@pytest.fixture
def kept(tmp_path):
    """One run of the demo's table, written and read again."""
    found = tables.collect(kept_scores.read(tmp_path / "none"), "demo", [_workdir(tmp_path / "run")], row="msddf")
    kept_scores.write(found, tmp_path / "scores")
    return kept_scores.read(tmp_path / "scores")


@pytest.fixture(scope="module")
def everything():
    return kept_scores.read()


# 2,000 draws for each cell of the real faces' tables take longer than the other tables together.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if "real" in name else name for name in tables.SPECS]
)
def test_the_documents_have_what_the_scores_give(name, everything):
    count, unlike = tables.check(everything, only=name)
    assert unlike == [] and bool(count) == bool(everything.of(name))


def test_a_changed_digit_is_found_and_mended(tmp_path, everything):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "Of these <!-- cell: demo; toy_swap; in training -->yes<!-- end --> were seen.\n"
    )
    page = tmp_path / "docs" / "demo.md"
    right = (tables.ROOT / "docs" / "results" / "demo.md").read_text()
    row = next(line for line in right.splitlines() if line.startswith("| `toy_swap`"))
    last = row.split("|")[-2].strip()
    digit = "1" if last[0] != "1" else "2"
    page.write_text(right.replace(row, row.replace(f" {last} |", f" {digit}{last[1:]} |")))
    of_demo = lambda part: {run: value for run, value in part.items() if run.table == "demo"}
    kept = kept_scores.Kept(of_demo(everything.scores), of_demo(everything.records), {})
    count, unlike = tables.check(kept, tmp_path)
    assert len(unlike) == 2 and unlike[0] == (
        "README.md:1: demo; toy_swap; in training: the document has 'yes', the scores give 'no'"
    )
    number = right.splitlines().index(row) + 1
    assert unlike[1] == (
        f"docs/demo.md:{number}: demo, row '`toy_swap`', column 'frame AUC, mean (sd)': the document has "
        f"'{digit}{last[1:]}', the scores give {last!r}"
    )
    assert tables.check(kept, tmp_path, write=True) == (count, unlike)
    assert page.read_text() == right and tables.check(kept, tmp_path) == (count, [])
    # A table that lost a line, one without an end, and one that nobody shows.
    page.write_text(right.replace(row + "\n", ""))
    assert "the document has" in tables.check(kept, tmp_path)[1][0]
    page.write_text(right.replace("<!-- end -->", ""))
    with pytest.raises(ValueError, match=r"docs/demo\.md: a marker .* no <!-- end -->"):
        tables.check(kept, tmp_path)
    page.write_text("")
    with pytest.raises(ValueError, match="no document shows the table 'demo'"):
        tables.check(kept, tmp_path)


def test_a_marker_takes_rows_and_columns(kept):
    get = lambda name: tables.make(kept, name)
    text = tables.render("table", "demo; rows: toy_swap; columns: frame AUC, mean (sd) | test set", get)
    assert text == "\n\n| frame AUC, mean (sd) | test set |\n| --- | --- |\n| 77.8 | `toy_swap` |\n\n"
    assert tables.render("cell", "demo; toy_neural; in training", get) == "yes"
    whole = tables.render("table", "demo", get)
    assert "code of abcdef0 (1); jaxlib 1.2; device toy" in whole and "| 77.8 [" in whole
    for wrong, said in {
        "demo; rows: toy_swab": "no 'toy_swab'; it has 'toy_neural'",
        "demo; lines: 3": "'lines', allowed: rows, columns",
        "demos": "no table 'demos'",
        "real": "no scores of the table 'real' are kept",
    }.items():
        with pytest.raises(ValueError, match=said):
            tables.render("table", wrong, get)


def test_what_is_kept_is_the_workdirs_scores_without_names(kept, tmp_path):
    (run,) = kept.scores
    assert run == ("demo", "msddf", 3) and set(kept.scores[run]) == set(EVALS)
    found, wanted = kept.scores[run]["toy_swap"], detection.read_scores(tmp_path / "run" / "scores" / "toy_swap.csv")
    order = np.argsort(wanted["video_key"])
    assert found["score"].tobytes() == wanted["score"][order].tobytes()
    for name in ("label", "method", "compression"):
        np.testing.assert_array_equal(found[name], wanted[name][order])
    # By hand: sha256sum of "toy/c23/real/a", a line break, "7"; and of the first part alone.
    assert found["item"][0] == "ec7f5189e14e" and found["group"][0] == "f90fd1041da9"
    text = lzma.decompress((tmp_path / "scores" / "scores.csv.xz").read_bytes()).decode()
    assert text.splitlines()[0] == ",".join(kept_scores.COLUMNS) and "toy/c23/real" not in text
    # Every figure, and the order in which a bootstrap draws.
    ours, theirs = ({**s, "video_key": s["video_key"]} for s in (found, {k: v[order] for k, v in wanted.items()}))
    assert detection.set_metrics("x", ours) == detection.set_metrics("x", theirs)
    assert detection.set_intervals("x", ours, resamples=20) == detection.set_intervals("x", theirs, resamples=20)
    record = kept.records[run]
    assert (record["commit"], record["step"], record["steps"]) == ("abcdef0123", 5, 9)
    assert record["command"].endswith("--config.seed=3 --workdir demo/seed3")


def _of_row(folder, sets, seed):
    """A workdir with evals {name: number of fakes of each manipulation}, and as many reals as fakes."""
    rng, results = np.random.default_rng(seed), {}
    for name, fakes in sets.items():
        method = [0] * sum(fakes.values()) + [METHODS.index(m) for m, count in fakes.items() for _ in range(count)]
        method = np.array(method, np.int32)
        # The items of an eval are the same for every seed, and not in the order of their names.
        names = [f"x{rank}.png" for rank in np.random.default_rng(len(name)).permutation(len(method)).tolist()]
        keys = np.array([f"sjedd/none/{METHODS[m]}/{n}" for m, n in zip(method.tolist(), names, strict=True)])
        scores = {
            "video_key": keys,
            "method": method,
            "frame_index": np.zeros(len(keys), np.int32),
            "label": (method > 0).astype(np.int32),
            "score": rng.random(len(keys), np.float32),
            "file": keys,
        }
        detection.write_scores(folder / "scores" / f"{name}.csv", scores)
        results |= detection.set_metrics(name, scores)
    about = {"step": 5, "aggregate": "mean", "versions": {"commit": None, "jaxlib": "1.2", "device": "toy"}}
    (folder / "results.json").write_text(json.dumps(results | {"_about": about}))
    (folder / "config.json").write_text("{}")
    return folder


def test_the_table_of_real_faces_is_that_of_its_runs(tmp_path, monkeypatch):
    """The same cells, intervals too, from the workdirs and from what is kept; runs that left something out as well."""
    monkeypatch.setattr(real, "RESAMPLES", 50)
    of_method = lambda *methods: dict.fromkeys(methods, 6)
    everything = {"val": of_method("faceswap"), "test": of_method(*real_rows.METHODS), "dfdc": {"dfdc": 9}}
    folders = [_of_row(tmp_path / row / "0", everything, i) for i, row in enumerate(("ln_tuning", "msddf"))]
    for i, method in enumerate(real_rows.METHODS):
        for row in ("ln_tuning", "msddf"):
            folder = tmp_path / f"{row}-without-{method}" / "0"
            folders.append(_of_row(folder, {"val": of_method("faceswap"), "test": of_method(method)}, 7 * i + len(row)))
    starts = [{"run": "msddf", "seed": seed, "at": "then"} for seed in (0, 1)]
    (tmp_path / "starts.jsonl").write_text("".join(json.dumps(start) + "\n" for start in starts))
    kept = tables.collect(kept_scores.Kept({}, {}, {}), "real", folders)
    kept_scores.write(tables.collect(kept, "real", folders), tmp_path / "scores")
    kept = kept_scores.read(tmp_path / "scores")
    assert kept.starts == {"real": starts} and len(kept.scores) == 10
    wanted = real.make_table(real.read_runs(types.SimpleNamespace(out=tmp_path, seeds=3)), starts)
    found = tables.make(kept, "real")
    assert found.rows == wanted.rows and found.header == wanted.header
    assert [line[:3] for line in found.rows] == [["LN-tuning", "0", "1"], ["MSDDF", "2", "1"]]
    assert all("[" in cell for cell in found.rows[1][4:])
    commands = [kept.records["real", row, 0]["command"] for row in ("msddf", "msddf-without-faceswap")]
    assert commands == [
        f"bash launch/real.sh MATERIAL real --rows=msddf --seeds=1{end}" for end in ("", " --leave_out")
    ]


def test_the_table_of_the_ablation_is_that_of_its_runs(tmp_path):
    sets = {f"{name}{end}": {name: 5} for name in base.METHODS for end in ("", "_c40")}
    folders = [_of_row(tmp_path / "clip_cross_domain" / "l2" / str(seed), sets, seed) for seed in (0, 1)]
    kept = tables.collect(kept_scores.Kept({}, {}, {}), "ablation", folders)
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    wanted = ablation.make_table({"clip_cross_domain/l2": results}, base.TRAINED_ON, {})
    assert tables.make(kept, "ablation").rows == wanted.rows and wanted.rows[0][:2] == ["cross-domain: LN + L2", "2"]


def test_the_digest_of_a_config_is_not_of_its_place():
    config = {"data": {"data_dir": "/a", "size": 3}, "init": {"backbone": "/a/clip.safetensors#sha256=ff&format=x"}}
    moved = {"data": {"data_dir": "/b", "size": 3}, "init": {"backbone": "real/clip.safetensors#sha256=ff&format=x"}}
    assert kept_scores.digest(config) == kept_scores.digest(moved)
    for key, value in (
        ("data", {"data_dir": "/a", "size": 4}),
        ("init", {"backbone": "/a/clip.safetensors#sha256=fe"}),
    ):
        assert kept_scores.digest(config) != kept_scores.digest({**config, key: value})


def test_collecting_again_replaces_and_other_items_are_refused(kept, tmp_path):
    again = tables.collect(kept, "demo", [_workdir(tmp_path / "run", SCORES[::-1])], row="msddf")
    (run,) = again.scores
    assert metrics.auc(again.scores[run]["val"]["score"], again.scores[run]["val"]["label"]) == pytest.approx(2 / 9)
    other = tables.collect(kept, "demo", [_workdir(tmp_path / "other", names="abcdeg", seed=4)], row="msddf")
    with pytest.raises(ValueError, match="has 6 items, that of msddf, seed 3, 6, and 5 are in both"):
        kept_scores.write(other, tmp_path / "scores")
    assert kept_scores.read(tmp_path / "scores").scores.keys() == kept.scores.keys()
    with pytest.raises(ValueError, match="lies in no folder named as a row of 'demo'"):
        tables.collect(kept, "demo", [tmp_path / "run"])
    with pytest.raises(FileNotFoundError, match=r"msddf_jax\.evaluate"):
        tables.collect(kept, "demo", [_unscored(tmp_path / "msddf" / "0")])
    with pytest.raises(ValueError, match=r"the rows \['msddf'\] are kept, not \['sbi'\]"):
        tables.drop(kept, "demo", ["sbi"])
    assert not tables.drop(kept, "demo", ["msddf"]).scores


def _unscored(folder):
    shutil.rmtree(_workdir(folder) / "scores")
    return folder


def _csv(path, scores, **columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_key", "frame_index", "score", *columns])
        for i, (name, score) in enumerate(zip("abcdef", scores, strict=False)):
            key = f"toy/c23/{'real' if i < 3 else 'toy_swap'}/{name}"
            writer.writerow([key, 7, score, *(column[i] for column in columns.values())])
    return path


def test_scores_beside_the_kept_by_hand(kept, tmp_path, capsys):
    """Ours has V10 = 1, 1, 1/3 and V01 = 1, 2/3, 2/3: variances 4/27 and 1/27. A perfect detector beside it: difference
    2/9, variance 5/81, z = 2 / sqrt(5) = 0.894, p = 0.371, interval 22.2 -+ 1.96 x 24.8."""
    path = _csv(tmp_path / "toy_swap.csv", (1, 2, 3, 40, 50, 60))
    tables.main(["--against", str(path), "--table", "demo", "--folder", str(tmp_path / "scores")])
    _, _, row, _, note = capsys.readouterr().out.splitlines()
    cells = ["toy_swap", "msddf", "3", "100.0", "77.8", "22.2 [-26.5, 70.9]", "0.371", "3 + 3"]
    assert row == f"| {' | '.join(cells)} |"
    assert "Not scored by you: toy_neural, toy_reenact, toy_texture, val." in note
    # Without an eval they are of every eval that has these items.
    path = _csv(tmp_path / "mine.csv", (1, 2, 3, 40, 50, 60), label="000111")
    tables.main(["--against", str(path), "--table", "demo", "--folder", str(tmp_path / "scores"), "--row", "msddf"])
    assert len(capsys.readouterr().out.splitlines()) == 2 + 5 + 2


@pytest.mark.parametrize(
    ("name", "scores", "columns", "said"),
    [
        ("toy_swap", (1, 2, 3, 4, 5), {}, "toy_swap: 1 of its 6 items are missing (first: "),
        ("mine", (1, 2, 3, 4, 5), {}, "1 of its 6 items are missing (first: "),
        ("mine", (1, 2, 3, 4, 5, 6), {"label": "000110"}, "has label 0 in your file, here 1"),
        ("mine", (1, 2, 3, 4, 5, 6), {"eval": ["toy_swab"] * 6}, "toy_swab: no eval of 'demo', which has toy_neural"),
        ("mine", (1, 2, "nan", 4, 5, 6), {}, "mine.csv, line 4: the score is 'nan', expected a finite number"),
        ("mine", (1, 2, 3, 4, 5, 6), {"item": list("aabbcc")}, "item a is there twice"),
        ("mine", (1, 2, 3, 4, 5, 6), {"item": list("uvwxyz")}, "6 of your 6 items are in no eval of 'demo' (first: u)"),
    ],
)
def test_scores_that_do_not_match_are_refused(kept, tmp_path, name, scores, columns, said):
    path = _csv(tmp_path / f"{name}.csv", scores, **columns)
    with pytest.raises(SystemExit) as error:
        tables.main(["--against", str(path), "--table", "demo", "--folder", str(tmp_path / "scores")])
    assert said in str(error.value) and "\n" not in str(error.value)
