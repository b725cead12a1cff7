"""Protocols of Celeb-DF++ and DF40, on small downloads: what trains, what tests, what is said of sets not built."""

import argparse
import json
import pathlib
import shutil

import pytest
import tiny_downloads
import tiny_images
from few_steps import STILL

from benchmarks import cross_dataset, protocols
from configs import datasets
from data_prep import build
from data_prep.catalog import Options
from data_prep.celebdf import downloads as celebdf
from data_prep.df40 import downloads as df40
from data_prep.df40 import names as df40_names
from msddf_jax import experiments, train
from msddf_jax.data import methods, source

CELEB_METHODS = [m for family in celebdf.METHODS.values() for m in family.values()]


def _args(data_dir, **changes):
    return argparse.Namespace(**{"data_dir": str(data_dir), "steps": None, "seeds": 1, "partial": False, **changes})


@pytest.fixture(scope="module")
def celeb(tmp_path_factory):
    """Built sets of a Celeb-DF++ with one test video of each method, its own method's in train and validation too."""
    tmp_path = tmp_path_factory.mktemp("celeb")
    own = [f"FaceSwap/Celeb-DF/id{a}_id{b}_{k:04d}" for a, b in ((0, 1), (1, 0), (7, 8), (8, 7)) for k in range(2)]
    tested = [
        f"{family}/{folder}/{'id3_0000_test_0' if family == 'TalkingFace' else 'id3_id4_0000'}"
        for family, folders in celebdf.METHODS.items()
        for folder in folders
    ]
    reals = [f"Celeb-real/id{i}_0000.mp4" for i in (0, 1, 3, 7, 8)] + [f"YouTube-real/{i:05d}.mp4" for i in range(6)]
    fakes = [f"Celeb-synthesis/{name}.mp4" for name in own + tested]
    root = tiny_downloads.write_videos(tmp_path / "Celeb-DF++", *reals, *fakes)
    listed = ["1 Celeb-real/id3_0000.mp4", *(f"0 Celeb-synthesis/{name}.mp4" for name in tested)]
    tiny_downloads.write_text(root, celebdf.TEST_LIST, "\n".join(listed))
    found = celebdf.find(root, "pp_derivedval", Options())
    tiny_downloads.prepare(found[0], tmp_path / "prepared", "celebdf", "pp_derivedval")
    build.build("celebdf", "pp_derivedval", tmp_path / "prepared", tmp_path / "built")
    return tmp_path / "built"


def _write_df40(root):
    """A DF40 with one fake a split of each face swap, and one of what brings its own reals."""
    swaps = [df40_names.json_names(m)[0] for m in df40_names.SWAP]
    tiny_images.write_pngs(
        root,
        [
            *(f"DF40_train/{m}/ff/frames/000_001/000.png" for m in swaps),
            *(f"DF40/{m}/ff/frames/002_003/000.png" for m in swaps),
            *(f"DF40/{m}/cdf/frames/id0_id1_0000/000.png" for m in swaps),
            *(f"{df40.FF_REALS}/frames/{i}/000.png" for i in ("000", "001", "002", "003")),
            "Celeb-DF-v2/Celeb-real/frames/id0_0000/000.png",
            *(f"DF40/heygen/{kind}/1.png" for kind in ("fake", "real")),
        ],
    )
    for split, pair in (("train", ["000", "001"]), ("test", ["002", "003"])):
        (root / "FaceForensics++" / f"{split}.json").write_text(json.dumps([pair]))
    return root


@pytest.fixture(scope="module")
def swaps(tmp_path_factory):
    """Built sets of that DF40: face swaps of both domains, and heygen."""
    tmp_path = tmp_path_factory.mktemp("df40")
    root = _write_df40(tmp_path / "root")
    for config in ("fs_ff", "fs_cdf", "unknown_heygen"):
        tiny_images.prepare_crops(root, tmp_path / config, "df40", config)
        build.build("df40", config, tmp_path / config, tmp_path / "built")
    return tmp_path / "built"


def _config(spec, name, key, data_dir, trained=None):
    protocol, shared = protocols.pick(name, trained)
    return protocols.load_config(protocol.trainings[key], shared, spec, _args(data_dir), 1, ())


def _there(config, settings):
    """(methods, number of reals) of a set that a config names."""
    opened = source.open_configured(config, settings)
    reals = opened.column("video_id")[opened.column("label") == "real"]
    return set(opened.column("method").tolist()) - {"real"}, len(set(reals.tolist()))


def test_methods_of_every_protocol():
    known = protocols.protocols()
    assert list(known) == ["gf", "gfq", "gfd", "df40_1", "df40_2", "df40_3", "df40_4"]
    assert list(known["gf"].tests) == list(known["gfd"].tests) == CELEB_METHODS and len(CELEB_METHODS) == 22
    # Three kinds as they are and in two qualities; each has all methods of its kind.
    kinds = known["gfq"].tests
    assert list(kinds) == [
        f"{k}{q}" for q in ("", "_crf23", "_crf40") for k in ("faceswap", "facereenact", "talkingface")
    ]
    assert [len(test.methods) for test in kinds.values()] == [8, 7, 7] * 3
    assert list(known["df40_1"].tests) == ["fs_ff", "fr_ff", "efs_ff"]
    assert list(known["df40_2"].tests) == ["fs_cdf", "fr_cdf", "efs_cdf"]
    assert set(known["df40_3"].tests) == set(df40_names.UNKNOWN)
    single = known["df40_4"]
    assert len(single.trainings) == 31 and len(single.tests) == 2 * 31 + 9
    assert single.trainings["df40_lia"] == protocols.Training("df40/fr_ff", ("lia",), False)
    assert single.tests["ddim_cdf"] == protocols.Test("df40/efs_cdf", ("ddim",))
    assert single.within["df40_lia"] == ("lia_ff",)
    for protocol in known.values():
        asked = [*protocol.trainings.values(), *protocol.tests.values()]
        assert {m for one in asked for m in one.methods or ()} <= set(methods.METHODS)
        for one in asked:
            name, config = one.set.split("/")
            assert config in build.make_builder(name, config, None).builder_configs
        assert all(set(columns) <= set(protocol.tests) for columns in protocol.within.values())


def test_columns_of_protocols_that_share_runs_have_names_of_their_own():
    for names in (("gf", "gfq"), ("df40_1", "df40_2", "df40_3")):
        columns = [column for name in names for column in protocols.protocols()[name].tests]
        assert len(set(columns)) == len(columns)
        assert all(set(protocols.pick(name)[1]) == set(columns) for name in names)
    assert set(protocols.pick("gfd")[1]) == set(protocols.protocols()["gfd"].tests)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gx",), r"unknown protocol 'gx', there are: gf, gfq, gfd, df40_1, .*df40_4; reproduce.sh also has logo"),
        (("df40_1", ["simswap"]), r"--trained names \['simswap'\]; df40_1 trains on: df40_fs, df40_fr, df40_efs"),
        (("gfq", None, ("c40",)), "--qualities has 'c40', expected crf0 to crf51"),
        (("gfq", None, ("crf52",)), "--qualities has 'crf52'"),
    ],
)
def test_what_there_is_not_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        protocols.pick(*arguments)


def test_celeb_df_pp(celeb):
    config = _config("configs/detectors/xception.py", "gf", "celebdf", celeb)
    assert _there(config, config.data.train)[0] == {"celebdf"} and config.data.group.match == "class"
    assert _there(config, config.evals[config.select.eval])[0] == {"celebdf"} and config.seed == 1
    train.check_config(config)
    for column in CELEB_METHODS:
        assert _there(config, config.evals[column]) == ({column}, 1)
    # Reals alone stay so.
    config = _config("configs/detectors/sbi.py", "gf", "celebdf", celeb)
    assert _there(config, config.data.train)[0] == set() and _there(config, config.evals.val)[0] == {"celebdf"}
    config = _config("configs/detectors/xception.py", "gfd", "faceforensics", celeb)
    assert (config.data.train.name, config.evals.val.name) == ("faceforensics/c23",) * 2
    assert config.data.group.match == "pair" and _there(config, config.evals.ghost) == ({"ghost"}, 1)


def test_qualities_are_read_from_their_own_folder(celeb, tmp_path):
    shutil.copytree(celeb, tmp_path, dirs_exist_ok=True)
    protocol, shared = protocols.pick("gfq", None, ("crf35",))
    problems = protocols.look(protocol.trainings, protocol.tests, tmp_path)
    assert set(problems) == {"faceswap_crf35", "facereenact_crf35", "talkingface_crf35"}
    with pytest.raises(
        FileNotFoundError, match=rf"(?s)faceswap_crf35, .*--data_dir {tmp_path}/crf35.*recompress_video"
    ):
        protocols.run(protocol, shared, _args(tmp_path))
    shutil.copytree(celeb, tmp_path / "crf35")
    assert protocols.look(protocol.trainings, protocol.tests, tmp_path) == {}
    config = protocols.load_config(
        protocol.trainings["celebdf"], shared, "configs/detectors/xception.py", _args(tmp_path), 0, ()
    )
    assert config.evals.talkingface_crf35.data_dir == str(tmp_path / "crf35") and config.evals.ghost.data_dir is None
    found = _there(config, config.evals.talkingface_crf35)
    assert found == (set(celebdf.METHODS["TalkingFace"].values()), 1)


def test_df40_by_kind_and_by_method(swaps):
    config = _config("configs/detectors/xception.py", "df40_1", "df40_fs", swaps)
    assert _there(config, config.data.train) == (set(df40_names.SWAP), 2)
    assert _there(config, config.evals.fs_ff) == (set(df40_names.SWAP), 2)
    assert _there(config, config.evals.fs_cdf) == (set(df40_names.SWAP), 1)
    assert _there(config, config.evals.heygen) == ({"heygen"}, 1)
    # Nothing to choose on: the last checkpoint.
    assert config.select is None and "val" not in config.evals and config.data.group.match == "class"
    train.check_config(config)
    opened = {n: source.open_configured(config, config.evals[n]) for n in ("fs_ff", "fs_cdf", "heygen")}
    assert train.check_leakage(config, source.open_configured(config, config.data.train), opened) == []
    config = _config("configs/detectors/xception.py", "df40_4", "df40_e4s", swaps)
    assert _there(config, config.data.train) == ({"e4s"}, 2)
    assert _there(config, config.evals.simswap_ff) == ({"simswap"}, 2)
    assert _there(config, config.evals.simswap_cdf) == ({"simswap"}, 1)


def test_a_kind_of_df40_goes_without_a_method_only_where_asked_to(tmp_path):
    root = _write_df40(tmp_path)
    shutil.rmtree(root / "DF40/e4s")
    with pytest.raises(df40.DownloadError, match="no folder of e4s"):
        df40.find(root, "fs_ff", Options())
    entries, problems = df40.find(root, "fs_ff", Options(allow_missing=True))
    assert [p.path for p in problems] == ["DF40/e4s"]
    tested = {e.fields["method"] for e in entries if e.split == "test"} - {"real"}
    assert tested == set(df40_names.SWAP) - {"e4s"}
    # Reals stand once, whatever the number of methods.
    assert sum(e.fields["label"] == "real" for e in entries) == 4
    entries, _ = df40.find(root, "fs_cdf", Options(methods=("simswap",), allow_missing=True))
    assert {e.fields["method"] for e in entries} == {"real", "simswap"}


def test_what_is_not_built_is_said_before_anything_trains(swaps, monkeypatch, tmp_path, capsys):
    trained = []

    def record(config, workdir):
        trained.append((pathlib.Path(workdir), set(config.evals), config.data.train.name))

    monkeypatch.setattr(train, "train_and_evaluate", record)
    flags = [f"--data_dir={swaps}", f"--out={tmp_path}", "--configs=configs/detectors/xception.py", "--seeds=1"]
    with pytest.raises(SystemExit, match=r"(?s)cannot start:.*fr_cdf: .*df40/fr_cdf.*pass --partial") as error:
        protocols.main(["--protocol=df40_2", *flags])
    # Every set that is missing once, with the command that builds it.
    assert str(error.value).count("python -m data_prep.build df40 --config efs_ff") == 1 and trained == []
    assert "df40_fr (train)" in str(error.value) and "--config fs_" not in str(error.value)
    with pytest.raises(SystemExit, match="no finished run of df40_2"):
        protocols.main(["--protocol=df40_2", "--partial", *flags])
    # All that is built for protocols that train alike is scored.
    assert trained == [(tmp_path / "df40_fs/xception/0", {"fs_ff", "fs_cdf", "heygen"}, "df40/fs_ff")]
    assert "left out: efs_cdf" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="cannot start"):
        protocols.main(["--protocol=df40_2", "--partial", "--trained=df40_fr", *flags])
    with pytest.raises(SystemExit, match="ValueError: unknown protocol 'logo'"):
        protocols.main(["--protocol=logo"])


def test_a_table_for_each_training_and_protocol(tmp_path, capsys):
    folder = tmp_path / "df40_lia/xception/0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    results = {"_about": {"step": 7, "versions": {"commit": "abc"}}, "_intervals": {}}
    for column, auc in (("lia_ff", 0.9), ("lia_cdf", 0.7), ("heygen", 0.6)):
        for level in ("video", "frame"):
            results |= {f"{column}/{level}_num_real": 2.0, f"{column}/{level}_num_fake": 3.0}
        results |= {f"{column}/{metric}": auc for metric in cross_dataset.METRICS}
    (folder / "results.json").write_text(json.dumps(results))
    protocols.main(["--protocol=df40_4", f"--out={tmp_path}", "--table"])
    text = (tmp_path / "df40_lia/df40_4.md").read_text()
    header = ["trained with", "lia_ff", "Avg within", "Top3 within", "lia_cdf", "heygen", "Avg cross", "Top3 cross"]
    assert [c.strip() for c in text.splitlines()[2].split("|")[1:-1]] == header or " | ".join(header) in text
    assert "| xception | 90.0 | 90.0 | 1 | 70.0 | 60.0 | 65.0 | 2 |" in text and "Within: lia_ff" in text
    assert (tmp_path / "df40_lia/df40_4.csv").is_file() and "trained on df40_lia" in capsys.readouterr().out
    assert not set(datasets.TEST_SETS) & set(protocols.protocols()["df40_4"].tests)


# Trains a small network: some seconds.
@pytest.mark.long
def test_a_protocol_runs_from_end_to_end(celeb, monkeypatch, tmp_path, capsys):
    def small(name, load=experiments.load):
        config = load("configs/detectors/clip.py:demo").unlock()
        size = source.open_source(protocols.CELEB, "train", celeb).image_size[0]
        config.data.image_size = config.model.image_size = size
        config.model.variant, config.augment = "Mu/8", {"image_size": size, **STILL}
        config.data.batch_size, config.data.eval_batch_size = 8, 16
        return config.lock()

    monkeypatch.setattr(experiments, "load", small)
    flags = [f"--data_dir={celeb}", f"--out={tmp_path}", "--configs=small", "--seeds=1", "--steps=2"]
    protocols.main(["--protocol=gf", *flags])
    results = json.loads((tmp_path / "celebdf/small/0/results.json").read_text())
    assert all(f"{method}/video_auc" in results for method in CELEB_METHODS) and "faceswap/video_auc" in results
    assert "celebdf" in (tmp_path / "celebdf/gf.md").read_text()
    # The other protocol of these runs takes what is there.
    capsys.readouterr()
    protocols.main(["--protocol=gfq", "--partial", *flags])
    assert "== small" not in capsys.readouterr().out and (tmp_path / "celebdf/gfq.md").is_file()
