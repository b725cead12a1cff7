"""Published weight files on a built set: AUC of each manipulation, of the file as `msddf_jax.weights` reads it.

    python -m benchmarks.published --weights FILE [FILE ...] --data_dir=DIR --set=sjedd/list:test [--out=results.json]

FILE is a reference of a whole detector (a path, hf://..., an address, a short name; with #format=... where names and
shapes leave more than one). Each is converted into a workdir that is thrown away and scored by `evaluate.score_set`;
stored crops of another side are resized by the model. Figures are AUCs of frames in percent, each manipulation's fakes
against all reals of the set. They depend on how the crops were cut: the files were trained on their authors' own.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import jax
import numpy as np

from benchmarks.timing import about
from msddf_jax import config_sets, evaluate, inference, paths, sharding
from msddf_jax.data import methods, source
from msddf_jax.evaluators import detection
from msddf_jax.show import page
from msddf_jax.statistics import tables
from msddf_jax.weights import __main__ as weights


def score_file(reference, eval_set) -> tuple[list[str], dict[str, np.ndarray]]:
    """(what the file is, in lines; the scores of `detection.collect_scores`) of a weight file on an opened set."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder, "workdir")
        said = weights.convert(reference, workdir)[:-1]  # the last line names the workdir
        model = inference.load_for_inference(workdir)
        mesh = sharding.make_mesh(model.config.mesh.to_dict())
        with jax.set_mesh(mesh):
            params = jax.device_put(model.params, sharding.replicated(mesh))
            scores = evaluate.score_set(
                model.config, model.predict_fn, params, reference, eval_set, mesh, any_size=True
            )
    return said, scores


def figures(scores) -> dict[str, dict[str, float | int]]:
    """{"all" or a manipulation: {"auc", "num_real", "num_fake"}} of frames."""
    values = detection.set_metrics("set", scores)
    real, out = scores["label"] == 0, {}
    for method in ("all", *(methods.METHODS[i] for i in np.unique(scores["method"][~real]))):
        where = "set" if method == "all" else f"set/{method}"
        fake = ~real if method == "all" else scores["method"] == methods.METHODS.index(method)
        out[method] = {"auc": values[f"{where}/frame_auc"], "num_real": int(real.sum()), "num_fake": int(fake.sum())}
    return out


def make_table(results) -> page.Table:
    """A row a file, a column a manipulation. results: {reference: {"figures": of `figures`}}."""
    columns = list(dict.fromkeys(method for found in results.values() for method in found["figures"]))
    rows = []
    for reference, found in results.items():
        values = [found["figures"].get(method) for method in columns]
        name = pathlib.PurePath(reference.partition("#")[0]).name
        rows.append([name, *(tables.percent(value["auc"]) if value else "-" for value in values)])
    first = next(iter(results.values()))["figures"]
    counts = ", ".join(f"{value['num_fake']} {method}" for method, value in first.items())
    note = f"AUC of frames in percent; {first['all']['num_real']} real against {counts}."
    return page.Table("published", ["weights", *columns], rows, note)


def main():
    """Score every file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", required=True, help="weight files of whole detectors")
    parser.add_argument("--data_dir", type=paths.expand, required=True, help="where the set is built")
    parser.add_argument("--set", required=True, help='"<data set>/<config>[:split]", by default of the split test')
    parser.add_argument("--out", type=paths.expand, help="a JSON file")
    args = parser.parse_args()
    try:
        asked = config_sets.eval_settings(args.set)
        eval_set = source.open_sources(asked["name"], asked["split"], args.data_dir)
        results = {}
        for reference in args.weights:
            said, scores = score_file(reference, eval_set)
            print("\n".join(said), flush=True)
            results[reference] = {"file": said, "figures": figures(scores)}
            # Each file compiles its own program; kept, they would fill the memory.
            jax.clear_caches()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    settings = {**about(), "set": f"{asked['name']}:{asked['split']}", "image_size": list(eval_set.image_size)}
    print(settings)
    print(page.markdown(make_table(results)))
    if args.out:
        text = json.dumps({**settings, "results": results}, indent=2)
        pathlib.Path(args.out).write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
