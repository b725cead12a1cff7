"""The site builds strictly, its links lead somewhere, what is made is up to date, and its commands are taken or run."""

import ast
import importlib.util
import json
import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import unicodedata

import doc_pages
import parse_only
import pytest
import test_protocol
import yaml

from benchmarks import config_page
from configs.detectors import meso4
from msddf_jax import train
from msddf_jax.statistics import metrics

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = doc_pages.pages()
BLOCKS = doc_pages.blocks()
CHECKED = [block for block in BLOCKS if block.reason is None]
EXTRAS = set(re.findall(r'^    "(\w+)": \[', (ROOT / "setup.py").read_text().partition("EXTRAS = {")[2], re.MULTILINE))
# What a script hands its further flags to.
PASSES_TO = {
    "ablate.sh": ("benchmarks.ablation", "--out=O", "--data_dir=D"),
    "local.sh": ("msddf_jax.main", "--config=configs/msddf.py", "--workdir=W"),
    "real.sh": ("benchmarks.real", "--data_dir=D", "--dfdc_dir=D", "--weights=W", "--out=O"),
    "reproduce.sh": ("benchmarks.cross_dataset", "--data_dir=D", "--out=O"),
    "slurm.sh": ("msddf_jax.main", "--config=configs/msddf.py", "--workdir=W"),
    "train.sh": ("msddf_jax.main",),
    "tpu_vm.sh": ("msddf_jax.main", "--config=configs/msddf.py", "--workdir=W"),
}


@pytest.mark.long  # builds the whole site: seconds
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs: pip install -e .[docs]")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES), len(pages)
    loaded = re.compile(r"<(?:script|img|link rel=\"stylesheet\")[^>]*(?:src|href)=\"?(https?:[^\s\">]+)")
    assert {page.name: found for page in pages if (found := loaded.findall(page.read_text(encoding="utf-8")))} == {}
    # Links to files outside docs/ lead to pages of the site; the API is there without JAX having been imported.
    site = tmp_path / "site"
    assert "repository/data_prep/folder/" in (site / "howto/own_data/index.html").read_text(encoding="utf-8")
    assert (site / "repository/data_prep/folder/index.html").is_file()
    assert "def get_common" in re.sub("<[^>]*>", "", (site / "repository/configs/common.py/index.html").read_text())
    assert "Equal error rate" in (site / "reference/api/statistics/index.html").read_text(encoding="utf-8")


def test_links_out_of_the_pages_are_turned():
    pytest.importorskip("mkdocs", reason="needs the extra docs: pip install -e .[docs]")
    hook = runpy.run_path(str(ROOT / "docs/repository_links.py"))
    turn = lambda text, uri: hook["on_page_markdown"](
        text, page=type("Page", (), {"file": type("File", (), {"src_uri": uri})}), config=None, files=None
    )
    there = "repository/configs/msddf.py.md"
    assert turn("[`a`](../../configs/msddf.py#L3)", "howto/x.md") == f"[`a`](../{there}#L3)"
    assert turn("[a](../configs/msddf.py) and [b](howto/y.md)", "x.md") == f"[a]({there}) and [b](howto/y.md)"
    # From a page of another folder, and back into docs/.
    assert turn("[a](../dfb/README.md)", "repository/data_prep/folder/README.md") == "[a](../dfb/README.md)"
    assert turn("[a](../../docs/faq.md)", "repository/data_prep/folder/README.md") == "[a](../../../faq.md)"
    for kept in ("```bash\n[a](../configs/msddf.py)\n```", "`[a](../configs/msddf.py)`", "[a](https://example.org/)"):
        assert turn(kept, "x.md") == kept


def _anchors(page):
    """The anchors of a page's headings, as GitHub and as Python-Markdown make them."""
    found = []
    for heading in doc_pages.headings(page):
        github = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
        site = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        found.append((github, site))
    return found


LINKING = sorted({*PAGES, *ROOT.glob("*.md"), *ROOT.glob("*/*/README.md")})


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in doc_pages.links(page):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        target, _, anchor = link.partition("#")
        there = (page.parent / target).resolve() if target else page
        assert there.is_file() or (page == ROOT / "README.md" and there.is_dir()), f"{link}: no file {there}"
        assert there.is_relative_to(ROOT), link
        if anchor:
            # Of the headings alone: one that stands twice has a number behind it, which the two count differently.
            assert [a for a, b in _anchors(there) if a == b].count(anchor) == 1, f"{link}: no such heading"


def test_every_page_is_in_the_navigation_once():
    # Its tags are MkDocs' own.
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("!", lambda *_: None)
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), loader)
    named = re.findall(r"[\w/]+\.md", json.dumps(settings["nav"]))
    hidden = settings["not_in_nav"].split()
    there = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]]
    assert sorted(named + hidden) == sorted(there)


@pytest.mark.parametrize("name", config_page.PAGES)
def test_the_config_pages_are_up_to_date(name):
    page = config_page.FOLDER / name
    assert page.read_text(encoding="utf-8") == config_page.PAGES[name](), "run python -m benchmarks.config_page"


def test_every_common_field_is_described():
    fields = config_page.common_fields()
    assert [field.path for field in fields if not field.comment] == []
    assert {field.path: field.default for field in fields}["optim.schedule"] == "cosine"
    assert len({field.path for field in fields}) == len(fields) == len(config_page.flatten(config_page.get_common()))


def test_every_metric_is_defined():
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    assert [name for name in (*metrics.NAMES, *metrics.CALIBRATED) if f"`{name}`" not in text] == []


def test_every_data_set_is_named():
    text = (ROOT / "docs/reference/data_sets.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "data_prep").glob("*/README.md")}
    assert folders == set(re.findall(r"^\| \[`(\w+)`\]\(../../data_prep/\w+/README.md\)", text, re.MULTILINE))


def test_few_blocks_are_left_out_each_with_its_reason():
    left_out = [block for block in BLOCKS if block.reason is not None]
    assert all(len(block.reason.split()) >= 3 for block in left_out), left_out
    assert len(left_out) <= len(BLOCKS) / 5
    # One name for shell blocks, so that none is overlooked.
    assert [block for name in ("sh", "shell", "console", "zsh") for block in doc_pages.blocks(name)] == []


def _programs():
    """(page, words) of every command of the blocks that are checked and of the lines, variables before it left off."""
    found = {}
    for block in CHECKED:
        for line in block.lines:
            for part in re.split(r" && |; ", line):
                words = shlex.split(re.sub(r"[\[\]](?=[\s-])|(?<=\s)[\[\]]|\.\.\.", "", part))
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                found.setdefault(tuple(words), block.page)
    for page, command in doc_pages.inline_commands():
        found.setdefault(tuple(shlex.split(command)), page)
    return sorted((page, words) for words, page in found.items() if words)


PROGRAMS = _programs()
MODULES = [words for _, words in PROGRAMS if words[0].endswith("python") and words[2] not in ("pytest", "pip")]


@pytest.fixture
def parsing(monkeypatch):
    with parse_only.parsing(monkeypatch):
        yield monkeypatch


@pytest.mark.parametrize("words", MODULES, ids=" ".join)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_a_command_of_the_docs_is_taken(words, parsing):
    program, option, module, *arguments = words
    assert program in ("python", ".venv/bin/python") and option == "-m", words
    if not arguments:  # a program that is named, not run
        assert importlib.util.find_spec(module) is not None
    elif "my_detectors" in " ".join(arguments):
        pytest.skip("the file is the reader's own; tests/test_protocol.py runs it")
    elif any(re.search(r"\bstudio\b", word) for word in arguments) and "prepare" not in module:
        pytest.skip("the data set is made by test_the_data_set_of_the_page_is_made_and_built")
    elif module != "mkdocs":
        assert parse_only.takes(module, arguments, parsing)


@pytest.mark.parametrize("words", [w for _, w in PROGRAMS if w not in MODULES], ids=" ".join)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_a_line_of_the_docs_is_one_that_its_program_takes(words, parsing):
    program, *arguments = words
    if program in ("bash", "sbatch"):
        script = next(word for word in arguments if word.endswith(".sh"))
        assert (ROOT / script).is_file(), script
        given = arguments[arguments.index(script) + 1 :]
        name = pathlib.Path(script).name
        if name == "install.sh":
            assert {extra for word in given for extra in word.split(",")} <= EXTRAS | {"auto"}
        elif name in PASSES_TO and given[:1] not in (["create"], ["queue"]):
            module, *own = PASSES_TO[name]
            first = next((i for i, word in enumerate(given) if word.startswith("-")), len(given))
            further = given[first:]
            if name == "reproduce.sh" and any(word.startswith("--protocol=") for word in further):
                module = "benchmarks.leave_one_out" if "--protocol=logo" in further else "benchmarks.protocols"
            if further:
                assert parse_only.takes(module, [*own, *further], parsing)
    elif program == "docker":
        _check_docker(arguments)
    elif program == "kubectl":
        assert arguments[:2] == ["apply", "-f"] and (ROOT / arguments[2]).is_file()
    elif program == "pip":
        assert arguments[:2] == ["install", "-e"] and len(arguments) == 3, arguments
        assert re.fullmatch(r"\.(\[\w+\])?", arguments[2]) and set(re.findall(r"\[(\w+)\]", arguments[2])) <= EXTRAS
    elif program == "mkdocs":
        assert arguments in (["build", "--strict"], ["serve"])
    elif program == "hf":
        assert arguments[0] == "download" and re.fullmatch(r"[\w.-]+/[\w.-]+", arguments[1]), arguments
    elif program == "export":
        assert all(re.fullmatch(r"[A-Z_]+=\S+", word) for word in arguments)
    elif program in (".ci/run", "cd"):
        assert (ROOT / (program if program != "cd" else arguments[0])).exists()
    else:
        pytest.fail(f"{program} is no program that these pages call: check it here, or mark the block as not run")


def _check_docker(arguments):
    """`docker build` names a stage of Dockerfile, `docker run` an image that such a line makes, and a script there."""
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    if arguments[0] == "build":
        stage = arguments[arguments.index("--target") + 1]
        assert stage in stages and arguments[arguments.index("-t") + 1] == f"msddf_jax:{stage}"
        return
    assert arguments[0] == "run"
    image = next(i for i, word in enumerate(arguments) if word.startswith("msddf_jax:"))
    assert arguments[image].partition(":")[2] in stages
    assert all((ROOT / word).is_file() for word in arguments[image + 1 :] if word.startswith("launch/"))


def test_the_detector_of_the_page_is_the_one_that_every_command_runs():
    """`tests/test_protocol.py` trains, resumes, scores and exports its SMALL."""
    page = doc_pages.block_of("docs/howto/add_a_detector.md", "class Model", "python")
    parsed = [ast.parse(text).body for text in (page.text, test_protocol.SMALL)]
    same = [[ast.dump(node) for node in body if ast.unparse(node) != "import jax"] for body in parsed]
    assert same[0] == same[1]


@pytest.mark.long  # three commands, of which one finds faces in six videos: seconds
def test_the_data_set_of_the_page_is_made_and_built(toy_data, tmp_path):
    page = "docs/howto/add_a_data_set.md"
    for name in ("data_prep", "msddf_jax"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "data_prep/studio").mkdir()
    (tmp_path / "data_prep/studio/__init__.py").write_text('"""STUDIO."""\n')
    for block in doc_pages.blocks("python"):
        if block.page == page:
            (tmp_path / block.text.partition("\n")[0].removeprefix("# ")).write_text(block.text)
    for file, name in (("schema.py", "DATASETS"), ("methods.py", "_FAMILY_OF")):
        path = tmp_path / "msddf_jax/data" / file
        [line] = re.findall(rf'^- `("studio".*,)` at the end of .*{file}\]', (ROOT / page).read_text(), re.MULTILINE)
        before, table, after = path.read_text().partition(f"\n{name} = ")
        closing = re.search(r"^[)}]", after, re.MULTILINE).start()
        path.write_text(before + table + after[:closing] + f"    {line}\n" + after[closing:])
    _lay_out_studio(toy_data[0], tmp_path / "STUDIO")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    for line in doc_pages.block_of(page, "--layout=studio").lines:
        command = [sys.executable, *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert "verdict: ok" in done.stdout
    index = (tmp_path / "data/tfds/studio/default/1.0.0/index-test.csv").read_text().splitlines()
    assert [line.split(",")[:5] for line in index[1:]] == [
        ["anna_01", "real", "real", "studio", ""],
        ["bert_01", "real", "real", "studio", ""],
        ["anna_01__bert", "fake", "studio", "studio", "anna_01"],
    ]


def _lay_out_studio(toy, root):
    """Drawn videos under the names of the page: anna, bert and their fake for the test, carl, dora and theirs."""
    reals, fakes = toy / "original_sequences/youtube/c23/videos", toy / "manipulated_sequences/ToySwap/c23/videos"
    pairs = [path.stem.split("_") for path in sorted(fakes.glob("*.mp4"))]
    first = pairs[0]
    second = next(pair for pair in pairs if not set(pair) & set(first))
    for (target, source), (one, two) in ((first, ("anna", "bert")), (second, ("carl", "dora"))):
        copies = {
            f"original/{one}_01": reals / target,
            f"original/{two}_01": reals / source,
            f"swapped/{one}_01__{two}": fakes / f"{target}_{source}",
        }
        for name, path in copies.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            for suffix in (".mp4", ".landmarks.npy"):
                shutil.copy(f"{path}{suffix}", f"{root / name}{suffix}")
    (root / "test.txt").write_text("anna_01\nbert_01\n")


# Commands of the pages that are run on drawn faces, in this order, and what each leaves behind.
RUN = (
    ("howto/your_own_video.md", "--num_frames=64", "predictions/predictions.jsonl"),
    ("howto/your_own_video.md", "--manifest kept.json", "kept.json"),
    ("howto/your_own_video.md", "--replay kept.json", "predictions/predictions.jsonl"),
    ("howto/one_gpu.md", "evaluate --workdir runs/msddf", "runs/msddf/results.csv"),
    ("howto/evaluate_stress_explain.md", "--against runs/gend", "runs/msddf/compare.json"),
    ("howto/evaluate_stress_explain.md", "msddf_jax.explain", "maps/explanations.jsonl"),
    ("howto/evaluate_stress_explain.md", "msddf_jax.report", "report.html"),
)
# Drawn faces have their landmarks beside them, and no model finds these. The rest keeps it short.
SHORT = {
    "predict": ["--landmarks=sidecar"],
    "explain": ["--landmarks=sidecar"],
    "evaluate": ["--resamples=20"],
}


@pytest.mark.long  # seven commands on a network that is trained for two steps: much to compile
@pytest.mark.filterwarnings(
    "ignore:.*found in sys.modules", "ignore:.*is at the end of the range", "ignore:no range is"
)
def test_commands_of_the_pages_run_on_drawn_faces(toy_data, tmp_path, monkeypatch):
    videos, built = toy_data
    config = meso4.get_config("demo").unlock()
    config.data.update({"data_dir": str(built), "image_size": 64, "batch_size": 8, "eval_batch_size": 16})
    config.model.image_size = config.augment.image_size = 64
    config.augment.jpeg_prob, config.steps, config.optim.warmup_steps, config.select.every = 0.0, 2, 0, 2
    monkeypatch.chdir(tmp_path)
    train.train_and_evaluate(config.lock(), "runs/msddf")
    shutil.copytree("runs/msddf", "runs/gend")
    source = sorted((videos / "original_sequences/youtube/c23/videos").glob("*.mp4"))[0]
    for name in ("my_video", "FILE"):
        for suffix in (".mp4", ".landmarks.npy"):
            shutil.copy(source.with_suffix(suffix), f"{name}{suffix}")
    for page, start, made in RUN:
        lines = [line for block in CHECKED if block.page == f"docs/{page}" for line in block.lines]
        _, _, module, *arguments = shlex.split(
            next(line for line in lines if start in line).replace("FILE...", "FILE.mp4")
        )
        pathlib.Path(made).unlink(missing_ok=True)
        parse_only.run(module, [*arguments, *SHORT.get(module.partition(".")[2], ())], monkeypatch)
        assert pathlib.Path(made).stat().st_size > 0, (page, start)
    record = json.loads(pathlib.Path("predictions/predictions.jsonl").read_text())
    fields = set(
        re.findall(r"`(\w+)`", (ROOT / "docs/reference/file_formats.md").read_text().partition("## A prepared")[0])
    )
    assert record["file"].endswith("my_video.mp4") and set(record) <= fields, set(record) - fields
