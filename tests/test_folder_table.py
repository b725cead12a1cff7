"""Tables of people's own files, as tools, Excel and hands write them."""

import csv
import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_folder import find, refuse, splits_of, table, write

from data_prep.catalog import DownloadError
from data_prep.folder import downloads
from data_prep.folder import table as tables

FILES = [f"{i}.jpg" for i in range(6)]
PLAIN = "path,label\n" + "".join(f"{name},{('real', 'fake')[i % 2]}\n" for i, name in enumerate(FILES))


def test_splits_of_a_table(tmp_path):
    names = ["a b/1.jpg", "2, x.png", "v.mp4", "1.jpg", "5.jpg", "6.jpg"]
    text = (
        'Label,PATH,split,method,group\nREAL,a b/1.jpg,train,,g\n1,"2, x.png",train,SimSwap,\n'
        f"fake,v.mp4,val,mine own,\n0,./1.jpg,validation,original,\nreal,{tmp_path}/5.jpg,test,,\n1,6.jpg,test,-,\n"
    )
    found, told = find(table(tmp_path, text, *names))
    assert {p: (e.split, e.fields["method"], e.fields["video_id"], e.fields["group_id"]) for p, e in found.items()} == {
        "a b/1.jpg": ("train", "real", "mine/a b/1.jpg", "mine/group:g"),
        "2, x.png": ("train", "simswap", "mine/2, x.png", "mine/file:2, x.png"),
        "v.mp4": ("validation", "unknown", "mine/mine own/v.mp4", "mine/file:v.mp4"),
        "1.jpg": ("validation", "real", "mine/1.jpg", "mine/file:1.jpg"),
        "5.jpg": ("test", "real", "mine/5.jpg", "mine/file:5.jpg"),
        "6.jpg": ("test", "unknown", "mine/6.jpg", "mine/file:6.jpg"),
    }
    assert told == {"method_unnamed": ["mine own"]} and found["v.mp4"].kind == "video"
    assert found["a b/1.jpg"].unit == f"folder/mine/{downloads.safe_name('a b')}"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.encode("utf-8-sig"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode("utf-16"),
        b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
        b"\xef\xbb\xbfsep=;\n" + PLAIN.replace(",", ";").encode(),
        PLAIN.replace("\n", ",,\n").encode(),
        PLAIN.replace("1.jpg", ".\\1.jpg").encode(),
        ("\n" + PLAIN).replace("\n", "\n,,\n").encode()[4:],
    ],
    ids=["bom", "crlf", "semicolons", "utf-16 tabs", "sep=", "bom sep=", "empty cells", "backslash", "empty rows"],
)
def test_forms_of_a_table(tmp_path, text):
    plain, _ = find(table(tmp_path / "a", PLAIN, *FILES))
    found, told = find(table(tmp_path / "b", text, *FILES))
    assert splits_of(found) == splits_of(plain) and set(told) == {"splits_made"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "expected a header"),
        (b"file,class\n1.jpg,real\n", "expected a header with the columns path and label"),
        (b"path,label\n", "lists no file"),
        (b"path,label\n1.jpg,maybe\n", "line 2: label 'maybe' of 1.jpg: expected real or 0, fake or 1"),
        (b"path,label\n1.jpg,\n", "line 2: label ''"),
        (b"path,label,split\n1.jpg,real,trian\n", "line 2: split 'trian'; did you mean train"),
        (b"path,label,split\n1.jpg,real,train\n2.jpg,fake,\n", "1 of 2 rows have no split, first 2.jpg"),
        (b"path,label,spilt\n1.jpg,real,train\n", "a column 'spilt': did you mean split"),
        (b"path,label,path\n1.jpg,real,2.jpg\n", "the column path twice"),
        (b"path,label\n1, 2.jpg,real\n", "line 2 has 3 cells, the header 2: a path with ',' in it"),
        (b"path,label\n1.jpg\n", "line 2 has 1 cells"),
        (b'path,label\n"1.jpg,real\n2.jpg,fake\n', "is not a CSV file"),
        (b"path,label\n\xe4.jpg,real\n", "CSV UTF-8"),
        (b"path,label\n,real\n", "line 2: no path"),
        (b"path,label\n1\0.jpg,real\n", "zero byte"),
        (b"path,label\n1.jpg,real\n1.jpg,fake\n", "lists 1.jpg twice, as real and as fake"),
        (b"path,label\n1.jpg,real\n./1.jpg,1\n", "twice, as real and as fake"),
        (b"path,label,split\n1.jpg,0,train\n1.jpg,0,test\n", "lists 1.jpg twice, as train and as test"),
        (b"path,label,group\n1.jpg,0,a\n1.jpg,0,b\n", "twice with other words"),
        (b"path,label,method\n1.jpg,real,simswap\n", "labelled real and its method is 'simswap'"),
        (b"path,label,method\n1.jpg,fake,Real\n", "labelled fake and its method is 'Real'"),
        (PLAIN.encode() + b"no/there.jpg,real\n", "lists 1 files that are not there: no/there.jpg"),
        (PLAIN.encode() + b"C:\\photos\\a.jpg,real\n", "paths of a Windows drive are none here"),
        (b"path,label\n" + b"x" * 200_000 + b",real\n", "is not a CSV file"),
        (b"path,label\n../folder,real\n", "is a folder: only one with numbered images"),
    ],
)  # fmt: skip
def test_tables_that_are_wrong(tmp_path, text, match):
    write(tmp_path, "folder/a.jpg")
    refuse(table(tmp_path / "files", text, *FILES), match)


def test_where_a_table_is(tmp_path):
    """Beside its files, named by --lists or as the root itself, with paths below either."""
    root = table(tmp_path / "a", PLAIN, *FILES)
    plain, _ = find(root)
    assert find(root / "list.csv")[0] == plain
    away = table(tmp_path / "b", PLAIN)
    assert splits_of(find(root, lists=str(away / "list.csv"))[0]) == splits_of(plain)
    assert splits_of(find(write(root, "real/x.jpg"), lists=str(away))[0]) == splits_of(plain)
    refuse(tmp_path, "no file or folder", lists=str(tmp_path / "none.csv"))


def test_what_else_a_table_lists(tmp_path):
    """Columns and files that mean nothing here are told; a row twice counts once; a folder can be a video."""
    frames = [f"clip/{i}.png" for i in range(3)]
    text = (
        PLAIN.replace("\n", ",1\n").replace("label,1", "label,width")
        + "clip,real,2\nnote.txt,real,3\n0.jpg,real,4\n._1.jpg,real,5\n"
    )
    found, told = find(table(tmp_path, text, *FILES, *frames, "note.txt", "._1.jpg"))
    assert told.keys() == {"columns_not_read", "not_media", "listed_twice", "splits_made", "numbered_images"}
    assert found["clip"].images == tuple(enumerate(frames)) and len(found) == 7
    text = PLAIN + "gone.jpg,real\n"
    found, told = find(table(tmp_path / "b", text, *FILES), allow_missing=True)
    assert told["missing_listed_file"] == ["gone.jpg"] and len(found) == 6


def test_look_asks_each_folder_once(tmp_path, monkeypatch):
    text = "path,label\n" + "".join(f"{i % 3}/{i}.jpg,{i % 2}\n" for i in range(60))
    root = table(tmp_path, text, *(f"{i % 3}/{i}.jpg" for i in range(60)))
    looks, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path) or scan(path))
    find(root / "list.csv")
    assert len(looks) == 3


PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30)
WORD = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=8)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(PATHS, st.sampled_from(sorted(tables.LABELS)), WORD, WORD), min_size=1, max_size=6),
    st.sampled_from(",;\t"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.permutations(["path", "label", "group", "identity"]),
)
def test_any_path_comes_back(tmp_path_factory, rows, delimiter, encoding, quoting, header):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, delimiter=delimiter, quoting=quoting)
    writer.writeheader()
    writer.writerows(dict(zip(("path", "label", "group", "identity"), row, strict=True)) for row in rows)
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    read, others = tables.read_table(path)
    wanted = [(name, tables.LABELS[label], group.strip(), person.strip()) for name, label, group, person in rows]
    assert [(row.path, row.label, row.group, row.identity) for row in read] == wanted and others == []


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_table_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(b"path,label\n" + data)
    try:
        rows, _ = tables.read_table(path)
    except DownloadError as error:
        assert str(path) in str(error)
    else:
        assert all(row.path and row.label in ("real", "fake") for row in rows)
