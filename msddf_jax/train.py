"""The loop: it orders things and holds no method. Everything that changes parameters is in `train_step`."""

import math
import pathlib
import signal
import sys
import time
import zlib
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from tqdm import tqdm

from msddf_jax import (
    checkpoint,
    cluster,
    cpu,
    delta,
    detector,
    evaluate,
    frozen,
    hooks,
    inference,
    logs,
    optim,
    remote,
    sharding,
    steps,
    trees,
)
from msddf_jax.data import needs, overlap, pipeline, schema, source
from msddf_jax.train_step import TrainState, ema_weights, init_players, init_state, make_cast, make_train_step
from msddf_jax.weights import load_initial

# Steps since the start that a profile covers: compiling and filling the pipeline are over by then.
PROFILED = (10, 15)


def train_and_evaluate(config, workdir, allow_leakage=False, profile=None) -> dict[str, float | dict | None]:
    """Train to `config.steps`, resuming what the workdir holds, then evaluate every set of `config.evals`.

    allow_leakage: go on where training or selection meets a test split; the log and `versions.json` say so.
    profile: folder for a trace of `PROFILED` steps, or None.

    Returns:
      the results as a dict, also written to `<workdir>/results.json`.

    Raises:
      ValueError, FileNotFoundError: a config, data set or weight file that does not fit, before anything runs.
      FloatingPointError: a loss that is not finite, named.
    """
    workdir = pathlib.Path(workdir)
    check_config(config, allow_leakage)
    train_set, eval_sets = open_data(config)
    needs.check(config.detector, detector.needs(config.detector), config.loss_weights, train_set)
    leakage = check_leakage(config, train_set, eval_sets, allow_leakage)
    checkpoint.save_config(workdir, config, allowed_leakage=leakage)
    for name, opened in {"data.train": train_set, **{f"evals.{k}": v for k, v in eval_sets.items()}}.items():
        cluster.agree(f"config.{name}, {opened.name},", pipeline.fingerprint(opened))
    state = fit(config, workdir, train_set, eval_sets, profile)
    if state is None:
        sys.exit(0)
    if jax.process_count() > 1:
        # Of a workdir in a store each host has a copy.
        multihost_utils.sync_global_devices("pushed")
        remote.pull(workdir)
    results = evaluate.evaluate_workdir(workdir, eval_sets=eval_sets)
    if jax.process_index() == 0:
        remote.push(workdir)
    return results


def check_config(config, allow_leakage=False) -> None:
    """Raise ValueError for settings that contradict each other, before any data is read."""
    detector.load(config.detector)
    hooks.check(config)
    if config.step.name not in steps.STEPS:
        raise ValueError(f"config.step.name is {config.step.name!r}, allowed: {', '.join(steps.STEPS)}")
    if config.select is not None:
        name = config.select.eval
        if name not in config.evals:
            raise ValueError(f"config.select.eval is {name!r}; config.evals has {sorted(config.evals)}")
    used = test_splits_used(config)
    if used and not allow_leakage:
        raise ValueError("; ".join(used))
    group = schema.make_group(config.data.group)
    if config.data.batch_size % group.rows:
        raise ValueError(
            f"config.data.batch_size={config.data.batch_size} is not a multiple of the {group.rows} rows of a "
            f"group ({group.real} real, {group.fakes} fake)"
        )
    if config.steps < 1 or config.log_every < 1 or config.checkpoint_every < 1:
        raise ValueError("config.steps, log_every and checkpoint_every must be at least 1")


def test_splits_used(config) -> list[str]:
    """Lines that say where the config trains or chooses checkpoints on a split that is for testing."""
    lines = []
    if config.select is not None:
        name, chosen = config.select.eval, config.evals[config.select.eval]
        if overlap.role_of(chosen.split, chosen.name) == "test":
            lines.append(
                f"config.select names {name!r}, which is a test split ({chosen.name}:{chosen.split}): a checkpoint "
                "chosen on the test set makes its figure meaningless; name an eval of a validation split"
            )
    for name, split in overlap.split_names(config.data.train.name, config.data.train.split):
        if split.startswith("test"):
            lines.append(f"config.data.train names {name}:{split}, a test split")
    return lines


def open_data(config) -> tuple[source.Source, dict[str, source.Source]]:
    """(training source, {eval name: source}). Every missing set is found before the error is raised."""
    problems = {}

    def attempt(opener, what):
        try:
            return opener()
        except (FileNotFoundError, ValueError) as error:
            # A set that several evals read is one missing thing, not five.
            problems.setdefault(str(error), []).append(what)
            return None

    def open_set(settings):
        return lambda: source.open_configured(config, settings)

    train_set = attempt(open_set(config.data.train), "config.data.train")
    eval_sets = {name: attempt(open_set(s), f"config.evals.{name}") for name, s in config.evals.items()}
    attempt(lambda: load_initial.locate_all(config.init), "weights")
    if problems:
        lines = [f"  - {', '.join(names)}: {error}" for error, names in problems.items()]
        raise FileNotFoundError("this experiment cannot start:\n" + "\n".join(lines))
    return train_set, eval_sets


def check_leakage(config, train_set, eval_sets, allow=False) -> list[str]:
    """Compare training and validation with every test split, by what the indexes say; print what was found.

    Args:
      train_set: Source. eval_sets: {eval name: Source}. allow: log errors instead of raising.

    Returns:
      list of str, the errors that were allowed.

    Raises:
      ValueError: training or selection meets a test split.
    """
    train, chosen = overlap.from_sources([train_set], "train"), config.select.eval if config.select else None
    select = overlap.from_sources([opened for name, opened in eval_sets.items() if name == chosen], "validation")
    is_test = lambda name: (
        name != chosen and overlap.role_of(config.evals[name].split, config.evals[name].name) == "test"
    )
    tests = overlap.from_sources([opened for name, opened in eval_sets.items() if is_test(name)], "test")
    found = overlap.check_experiment(train, select, tests)
    errors, reports = (list(map(overlap.describe, findings)) for findings in found)
    errors = test_splits_used(config) + errors
    for line in overlap.selection_lines([s.name for s in select], [s.name for s in tests]):
        tqdm.write(line)
    for line in reports:
        tqdm.write(f"leakage, reported: {line}")
    if errors and not allow:
        raise ValueError(
            "training or selection meets what is tested:\n"
            + "\n".join(f"  - {line}" for line in errors)
            + "\nName other splits, or pass --allow_leakage; versions.json in the workdir then says so."
        )
    for line in errors:
        logging.warning("leakage, allowed: %s", line)
    return errors


def fit(config, workdir, train_set, eval_sets, profile=None) -> TrainState | None:
    """Train until `config.steps`. Returns the final state, or None where SIGTERM ended it with a checkpoint saved."""
    mesh = sharding.make_mesh(config.mesh.to_dict())
    identities = source.identity_table(train_set)
    check_identities(config, identities)
    batches = pipeline.JoinedBatches(
        pipeline.train_batches(
            train_set,
            batch_size=config.data.batch_size,
            group=config.data.group,
            # Independent draws: seeds share nothing, however near (`pipeline.train_batches`).
            seed=config.seed + (number << 32),
            image_size=config.data.image_size,
            clip_length=config.data.clip_length,
            num_threads=config.data.num_threads,
            identities=identities,
        )
        for number in range(steps.STEPS[config.step.name].batches)
    )
    with jax.set_mesh(mesh), checkpoint.make_manager(workdir) as manager:
        state, shardings, fixed, origin = make_state(config, mesh)
        first, base = 0, checkpoint.base_to_go_on(manager, origin.base)
        restored = checkpoint.restore_last(manager, abstract(state, shardings), base, state)
        if restored is not None:
            first, state, iterator_state = restored
            batches.set_state(pipeline.decode_state(iterator_state))
            tqdm.write(f"resuming {workdir} at step {first} of {config.steps}")
        checkpoint.keep_origin(workdir, origin.weights, fixed, resumed=restored is not None)
        stop = StopSignal()
        with stop:
            # One process writes, or each would cut away what the others have written.
            writer = logs.MetricWriter(workdir, first) if jax.process_index() == 0 else None
            try:
                loop = Loop(config, workdir, mesh, manager, writer, batches, eval_sets, stop, fixed, base, profile)
                state, finished = loop.run(state, shardings, first)
            finally:
                if writer is not None:
                    writer.close()
    if not finished:
        tqdm.write(f"stopped by signal at step {int(state.step)}; checkpoint saved. Run the same command to resume.")
        return None
    return state


class Origin(NamedTuple):
    """What a run starts from. weights: {tree or player: {"file", "sha256", ...}}. base: `frozen.Base` of the detector,
    which is saved nowhere; None where nothing is frozen that a file gives."""

    weights: dict[str, dict]
    base: frozen.Base | None


def make_state(config, mesh) -> tuple[TrainState, TrainState, dict[str, dict], Origin]:
    """(state on the mesh, its shardings, {frozen player: variables}, where its weights came from).

    Parameters are created in place: whole ones never sit on one device.
    """
    shapes = jax.eval_shape(lambda: init_state(config))
    for pattern in optim.unmatched(shapes.params, make_cast(config).groups):
        logging.warning("optimiser group %r: no parameter goes by it; those it was meant for go by another", pattern)
    players = jax.eval_shape(lambda: init_players(config, frozen=True))
    initial, origin = load_weights(config, shapes, elsewhere=tuple(players))
    fixed, more = load_frozen(config, players, mesh)
    shardings = sharding.shard_state(shapes, config.sharding, mesh)
    make = jax.jit(lambda w: init_state(config, initial=w), out_shardings=shardings)
    return make(initial), shardings, fixed, origin._replace(weights={**origin.weights, **more})


def load_weights(config, shapes, elsewhere=()) -> tuple[dict, Origin]:
    """({player: {our flat name: array}} that `config.init` gives, where from).

    shapes: the state as shapes. elsewhere: frozen players, whose files are of another place. A trained player may start
    from a whole file of its own. Raises ValueError for weights that have no place.
    """
    flat = lambda name: trees.flatten({"params": shapes.params[name], **shapes.model_state[name]})
    module, adapt, computed = detector.load(config.detector), None, set()
    if hasattr(module, "from_backbone"):

        def adapt(loaded):
            before = {name: (zlib.crc32(value), value.shape) for name, value in loaded.items()}
            made = module.from_backbone(loaded, config.model)
            own = lambda value: (zlib.crc32(np.ascontiguousarray(value)), np.shape(value))
            computed.update(name for name, value in made.items() if own(value) != before.get(name))
            return made

    players = sorted(set(shapes.model_state) & set(config.init) - {"detector"})
    loaded, about = delta.load(config, flat("detector"), adapt=adapt, elsewhere=(*elsewhere, *players))
    trained = optim.trainable_names(shapes.params, make_cast(config).groups)
    held = [n for n in loaded if n.startswith("params/") and n not in computed and not trained[frozen.of_state(n)]]
    loaded |= {name: np.asarray(loaded[name], flat("detector")[name].dtype) for name in held}
    base, initial = delta.find_base(config, loaded, about, held), {"detector": loaded}
    for name in players:
        initial[name], about[name] = delta.load_whole(config.init[name], flat(name), f"config.init.{name}")
    return initial, Origin(about, base)


def load_frozen(config, shapes, mesh) -> tuple[dict[str, dict], dict[str, dict]]:
    """({frozen player: variables on the mesh}, {player: where from}): read from the files of `config.init`.

    shapes: {player: variables}. Raises ValueError for a frozen player that `config.init` does not name.
    """
    lacking = sorted(set(shapes) - set(config.init))
    if lacking:
        raise ValueError(
            f"{', '.join(lacking)} of detector {config.detector!r} is never trained, and config.init names no file for "
            f"it: set config.init.{lacking[0]}"
        )
    fixed, about = {}, {}
    for name, tree in shapes.items():
        flat, about[name] = delta.load_whole(config.init[name], trees.flatten(tree), f"config.init.{name}")
        fixed[name] = trees.unflatten(flat)
    return sharding.put_whole(fixed, mesh), about


def abstract(state, shardings) -> TrainState:
    """The state as shapes with shardings, to restore into."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def check_identities(config, identities) -> None:
    """Raise ValueError where the identity head has too few classes for the training set."""
    wanted = config.model.get("num_identities", 0)
    if wanted and len(identities) > wanted:
        raise ValueError(
            f"config.model.num_identities is {wanted}, the training set has {len(identities)} target identities"
        )


class StopSignal:
    """Turns SIGTERM and the first Ctrl-C into a flag, so that a step ends and a checkpoint is written.

    Of several processes, whichever is told, all stop after the same step: SIGTERM is then left with JAX, which agrees
    on it, and Ctrl-C becomes one.
    """

    def __init__(self):
        self._raised = False
        self._before = {}
        self._shared = jax.process_count() > 1

    def __enter__(self):
        for number in (signal.SIGINT,) if self._shared else (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._shared:
            # After training nothing waits for a step: evaluation is done again.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def reached(self, step) -> bool:
        """Whether training ends after this step; to be asked after every one."""
        return multihost_utils.reached_preemption_sync_point(step) if self._shared else self._raised

    def _handle(self, number, _):
        if self._raised and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._raised = True
        if self._shared:
            signal.raise_signal(signal.SIGTERM)


class Loop:
    """What the loop needs beside the state; `run` is the order of operations."""

    def __init__(self, config, workdir, mesh, manager, writer, batches, eval_sets, stop, fixed, base, profile=None):
        self.config, self.workdir, self.mesh, self.profile = config, workdir, mesh, profile
        self.manager, self.writer, self.batches = manager, writer, batches
        self.eval_sets, self.stop, self.fixed, self.base = eval_sets, stop, fixed, base
        self.score = inference.make_score_fn(config)

    def run(self, state, shardings, first) -> tuple[TrainState, bool]:
        """(state, finished). Steps from `first` to config.steps; saves, logs and selects on the way."""
        config = self.config
        step_fn = jax.jit(
            make_train_step(config),
            in_shardings=(shardings, None, None),
            out_shardings=(shardings, None),
            donate_argnums=0,
            compiler_options=cpu.training_options(config),
        )
        pending, window_start, window_step = None, time.monotonic(), first
        watch = logs.PriorWatch()
        bar = tqdm(
            range(first, config.steps), initial=first, total=config.steps, desc="train", unit="step", mininterval=1.0
        )
        for step in bar:
            if self.profile is not None:
                self.trace(step - first, config.steps - 1 - first, state)
            batch = tuple(sharding.put_batch(schema.device_batch(b), self.mesh) for b in next(self.batches))
            with jax.transfer_guard("disallow"):
                state, scalars = step_fn(state, batch, self.fixed)
            # One step behind, so that the check never makes the device wait for the host.
            if pending is not None:
                warning = watch.look(step, check_finite(step, jax.device_get(pending)))
                if warning:
                    logging.warning(warning)
            pending = scalars
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                values = check_finite(done, jax.device_get(scalars))
                images = (done - window_step) * config.data.batch_size
                values["images_per_second"] = images / (time.monotonic() - window_start)
                if jax.process_index() == 0:
                    self.writer.write(done, values)
                bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
                window_start, window_step = time.monotonic(), done
            if config.select is not None and (done % config.select.every == 0 or done == config.steps):
                self.select(done, state)
                window_start, window_step = time.monotonic(), done
            stop = self.stop.reached(done)
            if done % config.checkpoint_every == 0 or done == config.steps or stop:
                check_finite(done, jax.device_get(scalars))
                place = pipeline.encode_state(self.batches.get_state())
                checkpoint.save(self.manager, done, state, place, self.base)
                if jax.process_index() == 0:
                    # The checkpoint before this one, which is whole by now, and what was logged.
                    remote.push_soon(self.workdir)
            if stop and done < config.steps:
                self.finish()
                return state, False
        self.finish()
        return state, True

    def finish(self) -> None:
        """Returns once the last checkpoint is where it belongs."""
        self.manager.wait_until_finished()
        if jax.process_index() == 0:
            remote.push(self.workdir)

    def trace(self, number, last, state) -> None:
        """Starts and ends the profile. number: of steps since this start, before a step; last: what it will come to."""
        begin, end = PROFILED[0], min(PROFILED[1], last)
        if number == 0 and end <= begin:
            logging.warning("nothing is profiled: %d steps are left, the profile begins after %d", last + 1, begin)
        elif number == begin < end:
            jax.profiler.start_trace(self.profile)
        elif number == end > begin:
            # What was only sent off would be missing.
            jax.block_until_ready(state.step)
            jax.profiler.stop_trace()
            tqdm.write(f"profile of steps {begin} to {end}: {self.profile}")

    def select(self, step, state) -> None:
        """Evaluate on the validation set of `config.select`; keep the weights if they are the best so far."""
        settings = self.config.select
        weights = ema_weights(state)
        results = evaluate.evaluate_set(
            self.config, self.score, weights, settings.eval, self.eval_sets[settings.eval], self.mesh
        )
        name = f"{settings.eval}/{settings.metric}"
        if name not in results:
            raise ValueError(f"config.select.metric is {settings.metric!r}; the evaluation gives {sorted(results)}")
        value = results[name]
        if jax.process_index() == 0:
            self.writer.write(step, results)
        if math.isnan(value):
            raise ValueError(f"{name} is undefined (one class only); config.select needs a set with both classes")
        best = checkpoint.best_value(self.workdir, name)
        if best is None or value > best:
            checkpoint.save_best(self.workdir, step, weights, {name: float(value)}, self.base)
            if jax.process_index() == 0:
                remote.push_soon(self.workdir)


def check_finite(step, scalars) -> dict[str, float]:
    """The scalars as floats. Raises FloatingPointError naming every one that is not finite."""
    values = {name: float(np.asarray(value)) for name, value in scalars.items()}
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        raise FloatingPointError(
            f"step {step}: {bad} not finite. The last checkpoint is from before it; lower the learning rates or "
            "optim.clip_norm, or set JAX_DEBUG_NANS=true to find the operation."
        )
    return values
