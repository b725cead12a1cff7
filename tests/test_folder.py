"""People's own files: layouts, splits, and folders and tables that are not as they should be."""

import collections
import os
import pathlib

import pytest
import tiny_images
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import catalog
from data_prep.catalog import DownloadError, Options
from data_prep.folder import downloads, files, splits

SIX = [f"{c}/{i}{s}" for c, s in (("real", ".jpg"), ("fake/simswap", ".png")) for i in "abcdef"]


def write(root, *names, **texts):
    """Files that differ from each other and that nothing decodes, and texts. Returns root."""
    for name, text in {**{name: name for name in names}, **texts}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(text))
    return root


def table(root, text, *names, name="list.csv"):
    """A table beside files. Returns root."""
    write(root, *names)
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def find(root, config="scenes", **options):
    """({path: entry}, {code: [path]}) of a folder."""
    entries, problems = downloads.find(root, config, Options(**options))
    told = {}
    for problem in problems:
        told.setdefault(problem.code, []).append(problem.path)
    return {entry.path: entry for entry in entries}, told


def splits_of(found):
    return {path: entry.split for path, entry in found.items()}


def refuse(root, match, **options):
    with pytest.raises(DownloadError, match=match) as error:
        downloads.find(root, "scenes", Options(**options))
    assert "\n" not in str(error.value)


def test_folders_with_splits(tmp_path):
    """Both spellings of a split and any case; the set's name is in every name that records have."""
    names = ["Train/Real/a.jpg", "Train/FAKE/SimSwap/deep/a.jpg", "Train/FAKE/mygan/b.mp4", "Train/FAKE/c.png"]
    names += ["val/real/a.webp", "val/fake/a.png", "test/real/x.MOV", "test/fake/deepfakes/x.avi", "test/note.txt"]
    found, told = find(write(tmp_path, *names, "other/real/a.jpg", "list.csv", "note.txt"), name="holiday")
    assert {path: (e.split, e.fields["method"], e.kind, e.fields["pair_id"]) for path, e in found.items()} == {
        "Train/Real/a.jpg": ("train", "real", "frames", ""),
        "Train/FAKE/SimSwap/deep/a.jpg": ("train", "simswap", "frames", ""),
        "Train/FAKE/mygan/b.mp4": ("train", "unknown", "video", ""),
        "Train/FAKE/c.png": ("train", "unknown", "frames", ""),
        "val/real/a.webp": ("validation", "real", "frames", ""),
        "val/fake/a.png": ("validation", "unknown", "frames", ""),
        "test/real/x.MOV": ("test", "real", "video", ""),
        "test/fake/deepfakes/x.avi": ("test", "deepfakes", "video", ""),
    }
    video = found["Train/FAKE/mygan/b.mp4"]
    assert (video.unit, video.stem) == ("folder/holiday/Train/FAKE/mygan", "b.mp4") and video.dealt == ()
    assert video.fields["video_id"] == "holiday/Train/FAKE/mygan/b.mp4"
    assert video.fields["group_id"] == "holiday/file:Train/FAKE/mygan/b.mp4"
    # Two of five fakes have a real, fewer than half: one group with it, and no pairs.
    assert found["val/fake/a.png"].fields["group_id"] == "holiday/file:val/fake/a.png"
    assert found["val/real/a.webp"].fields["group_id"] == "holiday/file:val/fake/a.png"
    assert told == {
        "not_read": ["list.csv", "other"],
        "method_unnamed": ["mygan"],
        "pairs_by_name": ["test/fake/deepfakes/x.avi"],
    }


def test_pairs_by_name(tmp_path):
    names = ["real/a.mp4", "real/sub/b.mp4", "fake/simswap/a.avi", "fake/x/sub/b.mp4", "fake/x/a.b.mp4", "real/c.mp4"]
    names += ["fake/x/d.mp4", "real/e.mp4"]
    found, told = find(write(tmp_path, *names))
    pairs = {path: entry.fields["pair_id"] for path, entry in found.items() if entry.fields["pair_id"]}
    assert pairs == {"fake/simswap/a.avi": "mine/real/a.mp4", "fake/x/sub/b.mp4": "mine/real/sub/b.mp4"}
    for fake, real in (("fake/simswap/a.avi", "real/a.mp4"), ("fake/x/sub/b.mp4", "real/sub/b.mp4")):
        assert found[fake].split == found[real].split
        assert found[fake].fields["group_id"] == found[real].fields["group_id"]
    assert told["pairs_by_name"] == ["fake/simswap/a.avi"]


def test_a_name_in_two_given_splits_is_asked_about(tmp_path):
    names = [f"{split}/{label}/{split}.jpg" for split in ("train", "val", "test") for label in ("real", "fake")]
    found, told = find(write(tmp_path, *names, "train/fake/x/test.jpg"))
    assert told["same_name_apart"] == ["train/fake/x/test.jpg"]
    assert found["train/fake/x/test.jpg"].fields["pair_id"] == ""


def test_folders_of_numbered_images(tmp_path):
    """Below real/ and below a method's folder they are videos; straight in one of these they are pictures."""
    numbers = ["9.png", "010.jpg", "11.webp"]
    names = [
        f"{place}/{n}" for place in ("real/clip7", "fake/simswap/clip7", "fake/clip8", "fake/uniface") for n in numbers
    ]
    names += ["real/1.png", "real/2.png", "real/odd/1.png", "real/odd/1b.png", "fake/3.jpg"]
    found, told = find(write(tmp_path, *names))
    assert {path for path, e in found.items() if len(e.images) > 1} == {
        "real/clip7",
        "fake/simswap/clip7",
        "fake/clip8",
    }
    assert found["real/clip7"].images == (
        (9, "real/clip7/9.png"), (10, "real/clip7/010.jpg"), (11, "real/clip7/11.webp"),
    )  # fmt: skip
    assert found["fake/simswap/clip7"].fields["group_id"] == found["real/clip7"].fields["group_id"]
    assert (found["fake/clip8"].fields["method"], found["fake/uniface/9.png"].fields["method"]) == (
        "unknown",
        "uniface",
    )
    assert found["real/odd/1.png"].fields["group_id"] == found["real/odd/1b.png"].fields["group_id"]
    assert told["numbered_images"] and "method_unnamed" not in told
    # Without such folders among the reals, a folder of fakes is a method with numbered pictures.
    names = [f"fake/mygan/{n}" for n in numbers] + [f"real/{n}" for n in numbers]
    found, told = find(write(tmp_path / "photos", *names))
    assert len(found) == 6 and told["method_unnamed"] == ["mygan"] and "numbered_images" not in told


def test_splits_are_made(tmp_path):
    """20 of each class by 70, 15 and 15 per cent: 14, 3 and 3."""
    names = [f"{label}/{label}{i}.jpg" for label in ("real", "fake") for i in range(20)]
    found, told = find(write(tmp_path, *names))
    counts = collections.Counter((e.split, e.fields["label"]) for e in found.values())
    assert counts == {(s, c): n for s, n in (("train", 14), ("validation", 3), ("test", 3)) for c in ("real", "fake")}
    assert told == {"splits_made": ["."]} and found["real/real0.jpg"].dealt == ("train", "validation", "test")


def test_validation_is_cut_from_train(tmp_path):
    names = [
        f"{split}/{label}/{split}{label}{i}.jpg"
        for split in ("train", "test")
        for label in ("real", "fake")
        for i in range(20)
    ]
    found, told = find(write(tmp_path, *names))
    counts = collections.Counter((e.split, e.fields["label"]) for e in found.values())
    expected = {"train": 17, "validation": 3, "test": 20}
    assert counts == {(s, c): n for s, n in expected.items() for c in ("real", "fake")}
    assert {e.split for path, e in found.items() if path.startswith("test")} == {"test"} and set(told) == {
        "splits_made"
    }


def test_no_test_split_is_told(tmp_path):
    names = [f"{split}/{label}/{split}{label}.jpg" for split in ("train", "validation") for label in ("real", "fake")]
    assert find(write(tmp_path, *names))[1] == {"no_test": ["."]}


def test_what_belongs_together(tmp_path):
    """A group, a person and a sub-folder of images are in one split each; videos of a folder are not."""
    text = "path,label,group,identity\n"
    text += "".join(f"{i}.jpg,{i % 2},g{i // 4},p{i // 6}\n" for i in range(48))
    found, _ = find(table(tmp_path / "a", text, *(f"{i}.jpg" for i in range(48))))
    # Fours and sixes that overlap are twelves.
    groups = {found[f"{i}.jpg"].fields["group_id"]: i // 12 for i in range(48)}
    assert sorted(groups.values()) == [0, 1, 2, 3]
    for group in groups:
        assert len({e.split for e in found.values() if e.fields["group_id"] == group}) == 1
    real, fake = found["2.jpg"].fields, found["3.jpg"].fields
    assert (real["source_identity"], real["target_identity"]) == ("folder:mine:p0", "folder:mine:p0")
    assert (fake["source_identity"], fake["target_identity"]) == ("", "folder:mine:p0")
    names = [f"real/anna/{i}x.jpg" for i in range(9)] + [f"real/clips/{i}x.mp4" for i in range(9)] + SIX[6:]
    found, _ = find(write(tmp_path / "b", *names))
    groups = collections.Counter(e.fields["group_id"] for e in found.values())
    assert groups.pop("mine/folder:real/anna") == 9 and set(groups.values()) == {1}


def test_too_few_groups(tmp_path):
    refuse(
        write(tmp_path / "a", *(f"real/anna/{i}x.jpg" for i in range(9)), *SIX[6:]),
        r"real files are 1 group .*need one each",
    )
    refuse(write(tmp_path / "b", *SIX[:6], "fake/a.jpg", "fake/z.jpg"), "fake files are 2 groups")
    with pytest.raises(DownloadError, match="cannot_split"):
        # Three groups of each class, of which only two can be apart from each other in one class.
        splits.deal(["real", "fake", "real"], ["a", "b", "c"], splits.SHARES)


def test_one_class(tmp_path):
    refuse(write(tmp_path / "a", *SIX[:6]), "fake files are 0 groups")
    names = [f"{split}/{label}/{split}.jpg" for split in ("train", "val") for label in ("real", "fake")]
    refuse(write(tmp_path / "b", *names, "test/real/x.jpg"), "test has no fake file")


def test_two_layouts_or_none(tmp_path):
    refuse(write(tmp_path / "a", *SIX, "train/real/a.jpg"), "holds both")
    refuse(write(tmp_path / "b", "real/a.jpg", "Real/a.jpg"), "has both Real and real")
    refuse(write(tmp_path / "c", "val/real/a.jpg", "validation/real/a.jpg"), "has both val and validation")
    refuse(write(tmp_path / "d", "reals/a.jpg"), r"no table \*\.csv")
    refuse(write(tmp_path / "e", "a.csv", "b.csv"), "2 tables, a.csv, b.csv")
    refuse(tmp_path / "none", "no file or folder")
    refuse(write(tmp_path / "f", "real/a.txt", "fake/b.doc"), "found no image or video")
    refuse(write(tmp_path / "g", *SIX), "all is prepared", methods=("simswap",))


@pytest.mark.parametrize("name", ["Mine", "a b", "", "a/b", "x" * 41, "..", "mine_clip16", "mine\n"])
def test_names_of_sets(name):
    with pytest.raises(DownloadError, match="bad_name"):
        downloads.check_name(name)
    assert downloads.check_name("my-set_2") == "my-set_2"


def test_the_same_bytes(tmp_path):
    """Twice in a class is told and kept together; in both classes or two given splits it is an error."""
    root = write(tmp_path / "a", *SIX, **{"real/g.jpg": "real/a.jpg", "real/empty.jpg": "", "fake/empty.jpg": ""})
    found, told = find(root)
    assert told["same_bytes"] == ["real/a.jpg"] and found["real/a.jpg"].split == found["real/g.jpg"].split
    root = write(tmp_path / "b", *SIX, **{"fake/simswap/z.jpg": "real/a.jpg"})
    refuse(root, "1 files contradict others: fake/simswap/z.jpg in fake, holds the same bytes as real/a.jpg in real")
    found, told = find(root, allow_duplicates=True)
    assert told["two_classes"] == ["fake/simswap/z.jpg"]
    assert found["fake/simswap/z.jpg"].split == found["real/a.jpg"].split
    names = [f"{split}/{label}/{split}.jpg" for split in ("train", "val", "test") for label in ("real", "fake")]
    root = write(tmp_path / "c", *names, **{"train/real/z.jpg": "test/real/test.jpg"})
    refuse(root, "test/real/test.jpg in test, holds the same bytes as train/real/z.jpg in train")
    assert find(root, allow_duplicates=True)[1]["two_splits"] == ["test/real/test.jpg"]


def test_a_person_in_two_given_splits(tmp_path):
    rows = ("0,train,p", "1,train,p", "0,val,q", "1,val,q", "0,test,p", "1,test,r")
    text = "path,label,split,identity\n" + "".join(f"{i}.jpg,{row}\n" for i, row in enumerate(rows, 1))
    root = table(tmp_path, text, *(f"{i}.jpg" for i in range(1, 7)))
    refuse(root, "5.jpg in test, is of the same identity as 1.jpg in train: p")
    assert find(root, allow_duplicates=True)[1]["two_splits"] == ["5.jpg"]


def test_links_that_go_in_circles(tmp_path):
    root = write(tmp_path, *SIX)
    (root / "real/here").symlink_to(".", target_is_directory=True)
    (root / "real/deep").mkdir()
    (root / "real/deep/up").symlink_to("../..", target_is_directory=True)
    (root / "fake/lost.jpg").symlink_to("nowhere")
    refuse(root, "holds the same bytes")  # the fakes are below real/ too
    (root / "real/deep/up").unlink()
    (root / "real/deep/up").symlink_to("..", target_is_directory=True)
    assert set(find(root)[0]) == {*SIX, "fake/lost.jpg"}


NAMES = [
    "a, b.jpg",
    'say "x".jpg',
    "line\nbreak.jpg",
    "x" * 251 + ".jpg",
    "ü .jpg",
    "\udcff.jpg",
    ".a.b..jpg",
    "a_face1",
    "frames",
]


def test_names_that_are_hard_to_write(tmp_path):
    for name in NAMES:
        safe = downloads.safe_name(name)
        assert len(safe) <= 100 and safe.isascii() and safe.isprintable() and safe not in ("frames", "a_face1")
        assert safe == downloads.safe_name(name)
    assert len({downloads.safe_name(name) for name in NAMES}) == len(NAMES)
    assert downloads.safe_name("IMG_0001.JPG") == "IMG_0001.JPG"
    names = NAMES[:6]
    root = write(tmp_path, *(f"{c}/{name}" for c in ("real", "fake") for name in names))
    found, _ = find(root)
    ids = {e.fields["video_id"] for e in found.values()}
    assert "mine/real/line\nbreak.jpg" in ids and 'mine/fake/say "x".jpg' in ids and "mine/real/\\xff.jpg" in ids
    assert all(len(e.stem) < 110 and e.stem.isascii() for e in found.values())
    assert (root / "real" / NAMES[3]).is_file() and f"mine/real/{NAMES[3]}" in ids
    catalog.write_catalog(
        tmp_path / "c.jsonl", found.values(), dict.fromkeys((f"{e.unit}/{e.stem}" for e in found.values()), "x")
    )
    assert {line["fields"]["video_id"] for line in catalog.read_catalog(tmp_path / "c.jsonl")} == ids


COUNT = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=6, max_size=60)


@settings(deadline=None, max_examples=150)
@given(COUNT, st.randoms(use_true_random=False))
def test_dealing(counts, random):
    """Whole groups, whatever the order; every split has both classes; no further from the shares than two groups."""
    rows = [
        (label, f"g{g}") for g, pair in enumerate(counts) for label, n in zip(("real", "fake"), pair) for _ in range(n)
    ]
    holders = [len({g for label, g in rows if label == c}) for c in ("real", "fake")]
    deal = lambda some: splits.deal([label for label, _ in some], [g for _, g in some], splits.SHARES)
    if min(holders) < 3:
        with pytest.raises(DownloadError, match="cannot_split"):
            deal(rows)
        return
    chosen = deal(rows)
    shuffled = random.sample(rows, len(rows))
    assert deal(shuffled) == chosen and set(chosen) == {g for _, g in rows}
    for c in ("real", "fake"):
        mine = collections.Counter(chosen[g] for label, g in rows if label == c)
        assert set(mine) == set(splits.SHARES)
        if holders[0] == holders[1] == len(counts) and len(counts) >= 20:
            for split, share in splits.SHARES.items():
                assert abs(mine[split] - share * mine.total()) <= 8


def test_shares_of_many():
    groups = [str(i) for i in range(2000)]
    chosen = splits.deal(["real", "fake"] * 1000, groups, splits.SHARES)
    assert collections.Counter((split, int(g) % 2) for g, split in chosen.items()) == {
        (s, c): n for s, n in (("train", 700), ("validation", 150), ("test", 150)) for c in (0, 1)
    }


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), min_size=1, max_size=8))
def test_joining(keys):
    """Against the definition: keys that an item has are one set, and sets that meet are one."""
    sets = []
    for own in keys:
        meet = [s for s in sets if s & set(own)]
        sets = [s for s in sets if s not in meet] + [set(own).union(*meet)]
    assert splits.join(keys) == [min(next(s for s in sets if own[0] in s)) for own in keys]


def test_numbers_and_methods():
    assert files._numbers(["1.png", "02.JPG"]) == {1: "1.png", 2: "02.JPG"}
    for names in ([], ["1.png", "01.png"], ["1.png", "a.png"], ["1.mp4"], ["²2.png"], ["1234567890.png"]):
        assert files._numbers(names) is None
    words = ("Deepfakes", "Neural-Textures", "SimSwap", "heygen", "real", "unknown", "one shot free")
    assert [files.known_method(w) for w in words] == [
        "deepfakes",
        None,
        "simswap",
        "heygen",
        None,
        None,
        "one_shot_free",
    ]


def test_a_gif_is_what_it_shows(tmp_path):
    import PIL.Image

    pictures = [PIL.Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    pictures[0].save(tmp_path / "still.gif")
    pictures[0].save(tmp_path / "moving.gif", save_all=True, append_images=pictures[1:])
    write(tmp_path, "none.gif")
    assert [files.kind_of(tmp_path / f"{n}.gif") for n in ("still", "moving", "none")] == ["image", "video", "image"]


def test_crops(tmp_path):
    tiny_images.write_pngs(tmp_path, [name.replace(".jpg", ".png") for name in SIX])
    write(tmp_path, "real/v.mp4")
    found, told = find(tmp_path, "crops")
    assert {e.kind for path, e in found.items() if path.endswith("png")} == {"crops"}
    # In one output, what was prepared as one is not taken for the other.
    scenes, _ = find(tmp_path)
    assert not {e.unit for e in found.values()} & {e.unit for e in scenes.values()}
    assert told["videos_are_scenes"] == ["real/v.mp4"] and found["real/v.mp4"].kind == "video"
    assert pathlib.Path(found["real/v.mp4"].root) == tmp_path
