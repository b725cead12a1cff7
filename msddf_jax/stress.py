"""How a trained detector fares on perturbed images: `python -m msddf_jax.stress --workdir DIR`.

Writes <workdir>/stress/: a JSON file for each cell, so that a stopped run goes on where it was, table.txt, table.csv,
table.tex, stress.json and stress.png.
"""

import pathlib

import jax
from absl import app, flags

from msddf_jax import command, sharding
from msddf_jax.data import source
from msddf_jax.evaluators import attack, robustness
from msddf_jax.inference import load_for_inference


def stress_workdir(
    workdir, *, grids=robustness.GRIDS, evals=None, max_videos=None, transfer_from=None, data_dir=None,
    batch_size=None, seed=0,
) -> list[dict[str, str | list | float | None]]:  # fmt: skip
    """Run the grids over the evals of a workdir; write and print the table.

    Args:
      workdir: of a training run. grids: names of `robustness.GRIDS`. evals: names of the config's, None for all.
      max_videos: of each eval, half of them real; None for all. transfer_from: workdir of another run, for the
        transfer attack; None leaves that out. data_dir: where built data sets are, if not where the config says.
      batch_size: None for the config's; attacks hold a gradient and may need a smaller one. seed: of what is drawn.

    Returns:
      the rows of the table, see `robustness.stress_set`.

    Raises:
      ValueError: unknown grid or eval, or transfer_from without the grid "attack"; FileNotFoundError: no run or data.
    """
    workdir = pathlib.Path(workdir)
    _check_names("grid", grids, robustness.GRIDS)
    if transfer_from is not None and "attack" not in grids:
        raise ValueError(f"transfer_from is for the grid 'attack', which is not among {list(grids)}")
    model = load_for_inference(workdir)
    config = model.config
    evals = list(config.evals) if evals is None else list(evals)
    _check_names("eval", evals, config.evals)
    sets = {name: source.open_configured(config, config.evals[name], data_dir) for name in evals}
    if max_videos is not None:
        sets = {name: robustness.limit_videos(opened, max_videos) for name, opened in sets.items()}
    about = {"step": model.step, "weights": model.origin, "detector": config.detector}
    mesh = sharding.make_mesh(config.mesh.to_dict())
    rows = []
    with jax.set_mesh(mesh):
        put = lambda weights: sharding.put_whole(weights, mesh)
        weights, attacks = put(model.params), ()
        if "attack" in grids:
            attacks = attack.attacks(attack.make_logit_fn(config), weights)
        if transfer_from is not None:
            other = load_for_inference(transfer_from)
            origin = f"{transfer_from} ({other.config.detector}, {other.origin}, step {other.step})"
            attacks += attack.attacks(attack.make_logit_fn(other.config), put(other.params), origin)
        scorer = robustness.Scorer(
            model.predict_fn, weights, mesh, batch_size or config.data.eval_batch_size, config.data.image_size,
            config.data.num_threads, seed, config.get("aggregate", "mean"),
        )  # fmt: skip
        for name, opened in sets.items():
            rows += robustness.stress_set(workdir / "stress", name, opened, grids, scorer, about=about, attacks=attacks)
    if jax.process_index() == 0:
        print(robustness.write_results(workdir / "stress", rows, about))
        print(f"table and plot: {workdir / 'stress'}")
    return rows


def _check_names(what, given, known):
    unknown = sorted(set(given) - set(known))
    if unknown or not given:
        raise ValueError(f"unknown {what} {unknown}, allowed: {', '.join(known)}")


def main(argv) -> None:
    """Stress one workdir. Exit code 1 with one line where it cannot."""
    values = flags.FLAGS
    with command.errors_in_one_line(argv, (*command.ERRORS, RuntimeError)):
        stress_workdir(
            values.workdir,
            grids=values.grids,
            evals=values.evals,
            max_videos=values.max_videos,
            transfer_from=values.transfer_from,
            data_dir=values.data_dir,
            batch_size=values.batch_size,
            seed=values.seed,
        )


if __name__ == "__main__":
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, required=True)
    flags.DEFINE_list("grids", list(robustness.GRIDS), f"Which of {', '.join(robustness.GRIDS)}.")
    flags.DEFINE_list("evals", None, "Which of the config's evals; all by default.")
    flags.DEFINE_integer("max_videos", None, "Videos of each eval, half of them real; all by default.", lower_bound=2)
    command.define_path("transfer_from", None, "Workdir of another run whose gradient makes the transfer attack.")
    command.define_path("data_dir", None, "Where built data sets are, if not where the config says.")
    flags.DEFINE_integer("batch_size", None, "Images scored at once, if not as the config says.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of noise, blocks and random starts.", lower_bound=0)
    app.run(main)
