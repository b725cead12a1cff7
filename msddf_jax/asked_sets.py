"""Sets that `msddf_jax.evaluate` scores beside those of a workdir's config: opened, held against training, kept."""

import json

from ml_collections import ConfigDict

from msddf_jax import checkpoint, config_sets
from msddf_jax.data import overlap, source
from msddf_jax.statistics import tables, verdict


def open_asked(workdir, config, texts, data_dir=None, allow_leakage=False) -> tuple[dict, dict]:
    """Built sets that the config of a workdir does not name, held against what it was trained and chosen on.

    Args:
      workdir: of the detector, config: its own. texts: list of "<data set>/<config>[:split]", by default the split
        "test". data_dir: where built sets are, if not where the config says. allow_leakage: go on where they meet.

    Returns:
      ({name of the eval: Source}, {"sets": {name: {"name", "split"}}, "leakage": list of str}) for the record.

    Raises:
      ValueError: no set, one twice or of a name of the config's, or one that training or selection met.
      FileNotFoundError: a set that is not built.
    """
    opened, sets = {}, {}
    for text in texts:
        name, settings = config_sets.eval_name(text), config_sets.eval_settings(text)
        if name in opened or name in config.evals:
            raise ValueError(f"--sets {text}: {name} is named twice, or an eval of the config")
        opened[name] = source.open_sources(settings["name"], settings["split"], data_dir or config.data.data_dir)
        sets[name] = {"name": settings["name"], "split": settings["split"]}
        side = opened[name].image_size[0]
        if side != config.data.image_size:
            print(f"{text} holds crops of {side} px, the config's are of {config.data.image_size}: the model resizes")
    found = _leakage(workdir, config, opened, data_dir)
    errors = [line for kind, line in found if kind == "error"]
    if errors and not allow_leakage:
        raise ValueError(
            "the detector met what it is to be tested on:\n"
            + "\n".join(f"  - {line}" for line in errors)
            + "\nName other sets, or pass --allow_leakage; results.json then says so."
        )
    for kind, line in found:
        print(f"leakage, {'allowed' if kind == 'error' else kind}: {line}")
    return opened, {"sets": sets, "leakage": [f"{kind}: {line}" for kind, line in found]}


def _leakage(workdir, config, opened, data_dir):
    """[(kind, line)] of what training and selection share with sets, by their names; "not checked" where unknown."""
    chosen = [] if config.select is None else [config.evals[config.select.eval]]
    fitted = verdict.load_calibration(workdir) or {}
    if "set" in fitted:  # of msddf_jax.calibrate: likelihood ratios were fitted to it
        chosen.append(ConfigDict(fitted["set"] | {"max_frames": None}))
    before, lines = open_roles(workdir, config, {"train": [config.data.train], "validation": chosen}, data_dir)
    parts = [overlap.from_sources(before[role], role) for role in ("train", "validation")]
    errors, reports = overlap.check_experiment(*parts, overlap.from_sources(opened.values(), "test"))
    lines += [("error", overlap.describe(finding)) for finding in errors]
    return lines + [("reported", overlap.describe(finding)) for finding in reports]


def open_roles(workdir, config, roles, data_dir=None) -> tuple[dict, list[tuple[str, str]]]:
    """Opens the sets that a workdir had in some roles, as far as they can be told.

    Args:
      workdir: of the detector, config: its own. roles: {"train" | "validation" | "test": list of settings of a set}.
      data_dir: where built sets are, if not where the config says.

    Returns:
      ({role: list of Source}, [("not checked", what cannot be compared, and why)]). Of converted weights nobody knows
      what they were trained on: "train" and "validation" are empty then.
    """
    before, lines = {role: [] for role in roles}, []
    origin = (checkpoint.read_choice(workdir) or {}).get("converted_from")
    if origin is not None:
        why = f"the weights are converted ({origin}): what they were trained on is not recorded"
        lines.append(("not checked", why))
        roles = {role: settings for role, settings in roles.items() if role == "test"}
    for role, settings in roles.items():
        for one in settings:
            # Where the config says first: another folder may hold another set of the same name.
            for place in dict.fromkeys((None, data_dir)):
                try:
                    before[role].append(source.open_configured(config, one, place))
                    break
                except FileNotFoundError as error:
                    reason = error
            else:
                lines.append(("not checked", f"{one.name}:{one.split} ({role}) cannot be compared: {reason}"))
    return before, lines


def earlier_results(workdir, model, aggregate, dfb_compat) -> dict:
    """The results that a workdir holds of the weights of `model`, {} where there are none.

    Raises ValueError where they are by another aggregate, or one has DeepfakeBench's figures and the other has not.
    """
    path = workdir / "results.json"
    if not path.exists():
        return {}
    results = json.loads(path.read_text(encoding="utf-8"))
    about = results["_about"]
    if (about["step"], about["weights"]) != (model.step, model.origin):
        print(f"{path} is of other weights (step {about['step']}): its figures are not kept")
        return {}
    for name, ours in (("aggregate", aggregate), ("dfb_compat", dfb_compat)):
        theirs = about[name]
        if theirs != ours:
            flag = f"--{name}={theirs}" if name == "aggregate" else f"--{'' if theirs else 'no'}{name}"
            raise ValueError(
                f"{path} has {name}={theirs!r}, asked is {ours!r}, and one table has one: pass {flag}, or evaluate "
                "every set again, without --sets"
            )
    return results


def join_results(earlier, results) -> dict:
    """Results beside earlier ones of the same weights, which they replace where they are of the same set."""
    if not earlier:
        return results
    about, before = results["_about"], earlier["_about"]
    new = tables.eval_names(results)
    old = {key: value for key, value in earlier.items() if key.split("/")[0] not in new and not key.startswith("_")}
    ends = {key: value for key, value in earlier["_intervals"].items() if key.split("/")[0] not in new}
    about |= {
        "range": about["range"] or before["range"],
        "sets": before.get("sets", {}) | about["sets"],
        "leakage": list(dict.fromkeys([*before.get("leakage", []), *about["leakage"]])),
    }
    return {**old, **results, "_intervals": ends | results["_intervals"], "_about": about}
