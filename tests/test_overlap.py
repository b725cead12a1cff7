import dataclasses
import itertools
import json

import built_index
import pytest
from built_index import row, split_of
from tiny import tiny_config

from msddf_jax import evaluate, train
from msddf_jax.data import overlap, source

ALL = {f"{a}/{b}" for a, b in overlap.KNOWN_STRADDLERS}


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    root = tmp_path_factory.mktemp("lists")
    built_index.write_ffpp_lists(root)
    return root


def _ffpp(lists, config="c23", **kwargs):
    rows = built_index.ffpp_rows(lists, **kwargs)
    return {split: split_of(f"faceforensics/{config}:{split}", rows[split]) for split in rows}


def _by_check(findings):
    return {finding.check: finding for finding in findings}


def _identity(name):
    return {"source_identity": name, "target_identity": name}


def _celeb_real(clip, **kwargs):
    return row(clip, **_identity(f"cdf:{clip.split('_')[0]}"), **kwargs)


def _celeb_fake(stem, dataset="celebdf", prefix=""):
    target, giver, number = stem.split("_")
    return row(
        prefix + stem,
        method="celebdf",
        dataset=dataset,
        pair_id=f"{target}_{number}",
        source_identity=f"cdf:{giver}",
        target_identity=f"cdf:{target}",
    )


def test_exactly_the_seven_straddlers_of_faceforensics(lists):
    splits = _ffpp(lists)
    assert [s.num_videos for s in splits.values()] == [1440, 280, 280]
    found = [f for a, b in itertools.combinations(splits.values(), 2) for f in overlap.compare(a, b)]
    assert {f.check for f in found} == {"YouTube sources in both, known straddlers"}
    assert {f.verdict for f in found} == {"report"}
    assert {(f.first[-5:], f.second[-5:]): set(f.examples) for f in found} == {
        ("train", "ation"): {"605/606", "639/640", "837/838", "875/876", "982/983"},
        ("train", ":test"): {"755/756", "954/955"},
    }
    assert set().union(*(f.examples for f in found)) == ALL


def test_an_eighth_straddler_is_an_error_and_strict_makes_the_known_ones_errors(lists):
    splits = _ffpp(lists)
    rows = built_index.ffpp_rows(lists)
    # A clip of the test split, cut from the video of clips 000 and 001 of the training split.
    moved = rows["test"][1]["video_id"]
    for r in rows["test"]:
        if r["target_identity"] == f"ff:{moved}":
            r["group_id"] = "Yt_-id000"
    test = split_of("faceforensics/c23:test", rows["test"])
    found = _by_check(overlap.compare(splits["train"], test))
    other = found.pop("groups or sources in both")
    assert (other.count, other.verdict, other.examples) == (1, "error", (f"Yt_-id000 (000, {moved})",))
    assert found["YouTube sources in both, known straddlers"].count == 2
    strict = overlap.compare(splits["train"], splits["test"], strict=True)
    assert [f.verdict for f in strict] == ["error"]


def test_without_youtube_ids_the_known_straddlers_are_told_from_the_list(lists):
    splits = _ffpp(lists, youtube=False)
    found = overlap.compare(splits["train"], splits["test"])
    assert [set(f.examples) for f in found] == [{"755/756", "954/955"}]
    assert "without conversion_dict.json" in found[0].note
    # DF40 and others name the clip with its namespace.
    rows = built_index.ffpp_rows(lists, youtube=False)["test"]
    rows = [{**r, "dataset": "df40", "group_id": r["target_identity"]} for r in rows]
    found = _by_check(overlap.compare(splits["train"], split_of("df40/uniface_ff:test", rows)))
    assert set(found["YouTube sources in both, known straddlers"].examples) == {"755/756", "954/955"}
    assert {f.verdict for f in found.values()} == {"report"}


def test_training_clips_at_another_compression_are_leakage(lists):
    c23, c40 = built_index.ffpp_rows(lists), built_index.ffpp_rows(lists, compression="c40")
    train_set = split_of("faceforensics/c23:train", c23["train"])
    assert not [
        f for f in overlap.compare(train_set, split_of("faceforensics/c40:test", c40["test"])) if f.verdict == "error"
    ]
    # The same clips at c40, named a test split.
    found = _by_check(overlap.compare(train_set, split_of("faceforensics/c40:test", c40["train"][:2])))
    shared = found["videos in both"]
    assert (shared.count, shared.verdict) == (2, "error")
    names = sorted(r["video_id"] for r in c40["train"][:2])
    assert shared.examples == tuple(f"{name} (c23, c40)" for name in names)


def test_a_fake_and_its_real_apart_is_an_error_but_by_design_in_celebdf():
    fake = row("deepfakes/000_001", dataset="faceforensics", method="deepfakes", pair_id="000")
    real = row("000", dataset="faceforensics")
    found = overlap.compare(split_of("faceforensics/c23:train", [real]), split_of("faceforensics/c23:test", [fake]))
    assert [(f.check.split()[0], f.count, f.verdict) for f in found] == [("real", 1, "error")]
    assert found[0].examples == ("000 (000, deepfakes/000_001)",)

    train_set = split_of("celebdf/v2:train", [_celeb_real("id0_0000"), _celeb_fake("id2_id3_0001")])
    test = split_of("celebdf/v2:test", [_celeb_fake("id0_id1_0000"), _celeb_real("id3_0007")])
    found = overlap.compare(train_set, test)
    # Base id0_0000 on both sides; people id0 and id3.
    assert {(f.check.split()[0], f.count, f.verdict) for f in found} == {
        ("real", 1, "report"),
        ("identities", 2, "report"),
    }
    # A derived validation split was made to share nobody with training; the test list is the same.
    derived = [s._replace(name=s.name.replace("v2", "v2_derivedval")) for s in (train_set, test)]
    assert {f.verdict for f in overlap.compare(*derived)} == {"report"}
    validation = derived[1]._replace(name="celebdf/v2_derivedval:validation", role="validation")
    assert {f.verdict for f in overlap.compare(derived[0], validation)} == {"error"}


def test_identities_in_two_splits_are_an_error_where_the_split_is_by_person():
    deep = lambda video, actor: row(video, dataset="deepspeak", **_identity(f"dsv1:{actor}"))
    found = overlap.compare(
        split_of("deepspeak/v1_1:train", [deep("a", 1), deep("b", 2)]),
        split_of("deepspeak/v1_1:test", [deep("c", 2), deep("d", 3)]),
    )
    assert [(f.check, f.count, f.verdict, f.examples) for f in found] == [
        ("identities in both", 1, "error", ("dsv1:2",))
    ]


def test_deeperforensics_meets_faceforensics_by_clip_whatever_the_variant(lists):
    train_set = _ffpp(lists)["train"]
    # Not the first, 755: it is a known straddler.
    tested = built_index.ffpp_rows(lists)["test"][1]["video_id"]

    def deeper(target):
        return [
            row(
                f"end_to_end/{target}_M101",
                dataset="deeperforensics",
                method="deeperforensics",
                pair_id=target,
                source_identity="df1:M101",
                target_identity=f"ff:{target}",
            ),
            row(target, dataset="deeperforensics", compression="c23", **_identity(f"ff:{target}")),
        ]

    clean = overlap.compare(train_set, split_of("deeperforensics/end_to_end:test", deeper(tested)))
    assert {(f.check.split()[0], f.verdict) for f in clean} == {("names", "ok")}
    leaking = overlap.compare(train_set, split_of("deeperforensics/end_to_end:test", deeper("605")))
    assert {(f.check.split()[0], f.verdict) for f in leaking} == {
        ("videos", "error"),
        ("identities", "error"),
        ("names", "error"),
    }
    # A variant of the same fake is the same video.
    one, other = (
        split_of(f"deeperforensics/{v}:{s}", [{**deeper("605")[0], "video_id": f"{v}/605_M101"}])
        for v, s in (("end_to_end", "train"), ("end_to_end_level_1", "test"))
    )
    assert _by_check(overlap.compare(one, other))["videos in both"].count == 1


_FF_REAL = row("000", dataset="faceforensics", **_identity("ff:000"))


@pytest.mark.parametrize(
    ("names", "rows", "verdict"),
    [
        # One person of Celeb-DF in two versions: reported; the same clip: an error.
        (("celebdf/v1:train", "celebdf/v2:test"), (_celeb_real("id0_0000"), _celeb_real("id0_0001")), "report"),
        (("celebdf/v1:train", "celebdf/v2:test"), (_celeb_real("id0_0000"), _celeb_real("id0_0000")), "error"),
        (
            ("celebdf/v2:train", "df40/uniface_cdf:test"),
            (_celeb_real("id0_0000"), _celeb_fake("id0_id1_0000", "df40")),
            "error",
        ),
        # YouTube-real of Celeb-DF among the reals of FFSC, which name no identity.
        (
            ("ffsc/default:train", "celebdf/v2:test"),
            (row("CDF-youtube/00012", dataset="ffsc"), row("00012", **_identity("cdf:yt:00012"))),
            "error",
        ),
        (
            ("ffsc/default:train", "celebdf/v2:test"),
            (row("CDF-youtube/00012", dataset="ffsc"), row("00013", **_identity("cdf:yt:00013"))),
            "ok",
        ),
        # Known to overlap, and no name that could be compared.
        (("ffsc/default:train", "celebdf/v2:test"), (row("a_1", dataset="ffsc"), _celeb_real("id0_0000")), "error"),
        (("dfdc/full:train", "dfdcp/default:test"), (row("a", dataset="dfdc"), row("b", dataset="dfdcp")), "report"),
        (("uadfv/default:all", "df40/unknown_deepfacelab:train"), (row("1"), row("2", dataset="df40")), "report"),
        (("faceforensics/c23:train", "dfd/c23:all"), (_FF_REAL, row("01__x")), "ok"),
        (("dfb/FF-DF:train", "faceforensics/c23:test"), (row("FF-real/000", dataset="dfb"), _FF_REAL), "error"),
        (("dfb/UADFV:train", "faceforensics/c23:test"), (row("0001", dataset="dfb"), _FF_REAL), "report"),
    ],
)  # fmt: skip
def test_known_overlaps(names, rows, verdict):
    found = overlap.compare(*(split_of(name, [r]) for name, r in zip(names, rows, strict=True)))
    assert max((f.verdict for f in found), key=overlap.VERDICTS.index) == verdict, found
    assert any(f.check.startswith("names of data sets") for f in found)


def test_every_entry_of_the_table_names_known_data_sets():
    from msddf_jax.data import schema

    for entry in overlap.OVERLAPS:
        for pattern in (entry.first, entry.second):
            assert pattern == "*" or pattern.split("/")[0] in (*schema.DATASETS, "dfdm")
        assert entry.rule in ("names", "copy", "report", "ok")


def test_unrelated_sets_and_splits_of_one_role_share_nothing(lists):
    train_set = _ffpp(lists)["train"]
    assert overlap.compare(train_set, split_of("celebdf/v2:test", [_celeb_real("id0_0000")])) == []
    assert overlap.compare(train_set, train_set) == []
    # Names are compared within their namespace: 000 of another set is another video.
    assert overlap.compare(train_set, split_of("uadfv/default:all", [row("000", dataset="uadfv")])) == []


def test_roles():
    roles = {name: overlap.role_of(name) for name in ("train", "validation", "val", "test", "all", "test_unseen")}
    assert roles == {"train": "train", "validation": "validation", "val": "validation", "test": "test", "all": "test",
                     "test_unseen": "test"}  # fmt: skip


def test_validation_is_named_and_whether_it_is_tested_too():
    assert overlap.selection_lines(["ffiw/default:validation"], ["ffiw/default:test", "celebdf/v2:test"]) == [
        "validation comes from ffiw/default:validation (also tested on: not a cross-data-set figure)"
    ]
    assert overlap.selection_lines([], ["celebdf/v2:test"]) == ["validation comes from no set"]


def test_a_file_that_is_no_index(tmp_path):
    path = tmp_path / "index-train.csv"
    path.write_text("video_id,label\n000,real\n")
    with pytest.raises(ValueError, match=r"index-train.csv has the columns \['video_id', 'label'\], expected at least"):
        overlap.read_index(path)
    built_index.write_set(tmp_path, "celebdf/v2", {"test": [row("a")]})
    path = tmp_path / "celebdf/v2/1.0.0/index-test.csv"
    path.write_text(path.read_text() + "b,real\n")
    with pytest.raises(ValueError, match=r"line 3: expected 15 columns"):
        overlap.read_index(path)


@pytest.fixture
def opened(toy_data):
    """(config, training source, {eval name: source}) of the small embedded set."""
    config = tiny_config(toy_data[1], bare=True).copy_and_resolve_references().unlock()
    return config, *train.open_data(config)


def test_a_mixed_source_is_compared_set_by_set(toy_data):
    opened = source.open_sources("faceforensics/toy,faceforensics/toy:validation", "train", toy_data[1])
    first, second = overlap.from_sources([opened], "train")
    names = ["faceforensics/toy:train", "faceforensics/toy:validation"]
    assert [first.name, second.name, first.role, second.role] == [*names, "train", "train"]
    alone = [source.open_source("faceforensics/toy", split, toy_data[1]) for split in ("train", "validation")]
    assert [first, second] == overlap.from_sources(alone, "train")
    # The second part is what is tested too.
    errors, _ = overlap.check_experiment([first, second], [], overlap.from_sources(alone[1:], "test"))
    assert {(finding.first, finding.verdict) for finding in errors} == {(names[1], "error")}


def test_trainer_accepts_the_toy_set_and_says_where_validation_comes_from(opened, capsys):
    assert train.check_leakage(*opened) == []
    out = capsys.readouterr().out
    assert "validation comes from faceforensics/toy:validation (also tested on" in out
    assert "leakage" not in out


def test_trainer_refuses_a_test_split_that_holds_training_videos(opened, tmp_path):
    config, train_set, eval_sets = opened
    eval_sets["toy_swap"] = dataclasses.replace(train_set, name="faceforensics/toy_c40:test")
    with pytest.raises(ValueError, match=r"faceforensics/toy:train and faceforensics/toy_c40:test: \d+ videos in both"):
        train.check_leakage(config, train_set, eval_sets)
    lines = train.check_leakage(config, train_set, eval_sets, allow=True)
    assert any("videos in both" in line for line in lines)


def test_trainer_refuses_a_selection_that_meets_a_test_split(opened):
    config, train_set, eval_sets = opened
    eval_sets["toy_swap"] = dataclasses.replace(eval_sets["val"], name="faceforensics/toy_c40:test")
    with pytest.raises(ValueError, match="faceforensics/toy:validation and faceforensics/toy_c40:test: "):
        train.check_leakage(config, train_set, eval_sets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.data.train.update(split="test"), "config.data.train names faceforensics/toy:test, a test split"),
        (lambda c: c.select.update(eval="toy_swap"), "config.select names 'toy_swap', which is a test split"),
    ],
)
def test_allowed_leakage_is_kept_in_the_workdir(opened, tmp_path, monkeypatch, change, message):
    config = opened[0]
    change(config)
    with pytest.raises(ValueError, match=message):
        train.train_and_evaluate(config, tmp_path)
    assert not (tmp_path / "versions.json").exists()
    monkeypatch.setattr(train, "fit", lambda *_: None)
    with pytest.raises(SystemExit):
        train.train_and_evaluate(config, tmp_path, allow_leakage=True)
    kept = json.loads((tmp_path / "versions.json").read_text())["allowed_leakage"]
    assert message in kept[0]


@pytest.mark.parametrize(
    ("name", "split", "role"),
    [
        ("a/b", "validation", "validation"),
        ("a/b", "train", "train"),
        ("a/b", "all", "test"),
        # A split in the name counts, and of several the one that asks for most care.
        ("a/b:test", "validation", "test"),
        ("a/b,c/d:all", "train", "test"),
        ("a/b:validation,c/d", "train", "train"),
        ("a/b:validation", "test", "validation"),
    ],
)
def test_the_role_of_a_set_is_that_of_its_own_splits(name, split, role):
    assert overlap.role_of(split, name) == role


def test_a_test_split_in_the_name_neither_chooses_nor_calibrates(opened):
    config = opened[0]
    with config.unlocked():
        config.evals.val.update(name="faceforensics/toy:test", split="validation")
    with pytest.raises(ValueError, match="is a test split"):
        train.check_config(config)
    chosen, why = evaluate.validation_eval(config)
    assert chosen is None and "'test'" in why


def test_indexes_of_a_source_leave_out_what_it_has_no_records_of(toy_data):
    opened = source.open_source("faceforensics/toy", "test", toy_data[1], methods=("toy_swap",))
    (split,) = overlap.from_sources([opened])
    # Two identities: two reals and two fakes of the one method.
    assert (split.role, split.num_videos) == ("test", 4)
