"""Sets that `msddf_jax.evaluate` scores beside those of a workdir's config: opened, held against training, kept."""

import json

from msddf_jax import checkpoint, config_sets
from msddf_jax.data import overlap, source
from msddf_jax.statistics import tables


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
    origin = (checkpoint.read_choice(workdir) or {}).get("converted_from")
    if origin is not None:
        return [("not checked", f"the weights are converted ({origin}): what they were trained on is not recorded")]
    before, lines = {}, []
    chosen = [] if config.select is None else [config.evals[config.select.eval]]
    for role, settings in (("train", [config.data.train]), ("validation", chosen)):
        before[role] = []
        for one in settings:
            for place in dict.fromkeys((data_dir, None)):
                try:
                    before[role].append(source.open_configured(config, one, place))
                    break
                except FileNotFoundError as error:
                    reason = error
            else:
                lines.append(("not checked", f"{one.name}:{one.split} ({role}) cannot be compared: {reason}"))
    parts = [overlap.from_sources(before[role], role) for role in ("train", "validation")]
    errors, reports = overlap.check_experiment(*parts, overlap.from_sources(opened.values(), "test"))
    lines += [("error", overlap.describe(finding)) for finding in errors]
    return lines + [("reported", overlap.describe(finding)) for finding in reports]


def earlier_results(workdir, model, aggregate, dfb_compat) -> dict:
    """The results that a workdir holds of the weights of `model`, {} where there are none.

    Raises ValueError where they are by another aggregate, or with dfb_compat where these are without.
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
        if about[name] != ours:
            raise ValueError(f"{path} has {name}={about[name]!r}, asked is {ours!r}: one table has one; pass --{name}")
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
