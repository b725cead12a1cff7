"""Meshes and shardings: `jit` with `NamedSharding` on every device there is, one process or many."""

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from msddf_jax import trees


def make_mesh(axes) -> Mesh:
    """A device mesh from `{"data": -1, ...}`; one axis may be -1 and takes the devices that are left.

    Axis types are Auto: `jax.make_mesh` defaults to Explicit, under which linen modules with Dropout fail. Over several
    TPU slices the first axis runs across them, and every other axis stays within one (`arrange_slices`).

    Raises:
      ValueError: the sizes do not multiply to the number of devices, or the slices do not divide the first axis.
    """
    names, sizes = tuple(axes), [axes[name] for name in axes]
    if sizes.count(-1) > 1:
        raise ValueError(f"mesh {dict(axes)}: only one axis may be -1")
    count = jax.device_count()
    if -1 in sizes:
        rest = int(np.prod([s for s in sizes if s != -1]))
        if rest == 0 or count % rest:
            raise ValueError(f"mesh {dict(axes)} does not divide the {count} devices")
        sizes[sizes.index(-1)] = count // rest
    if int(np.prod(sizes)) != count:
        raise ValueError(f"mesh {dict(axes)} needs {int(np.prod(sizes))} devices, there are {count}")
    kinds = (AxisType.Auto,) * len(names)
    if len({_slice_of(device) for device in jax.devices()}) > 1:
        return Mesh(arrange_slices(jax.devices(), sizes), names, axis_types=kinds)
    return jax.make_mesh(tuple(sizes), names, axis_types=kinds)


def arrange_slices(devices, sizes) -> np.ndarray:
    """Devices of several TPU slices as an array of shape `sizes`, one slice's in a block of the first axis.

    Only the data-centre network joins slices: the first axis alone, whose sums are the fewest bytes, crosses it.

    Raises:
      ValueError: the first size is no multiple of the number of slices.
    """
    slices = len({_slice_of(device) for device in devices})
    if sizes[0] % slices:
        raise ValueError(
            f"{slices} slices: the first axis of config.mesh is {sizes[0]}, expected a multiple of {slices} "
            "(the other axes stay within a slice)"
        )
    within, across = (sizes[0] // slices, *sizes[1:]), (slices, *(1 for _ in sizes[1:]))
    return mesh_utils.create_hybrid_device_mesh(within, across, devices)


def _slice_of(device):
    return getattr(device, "slice_index", 0)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis over all mesh axes."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def infer_sharding(shapes, rules, mesh: Mesh) -> dict[str, dict | NamedSharding]:
    """A NamedSharding for every leaf.

    Args:
      shapes: nested dict of arrays or `jax.ShapeDtypeStruct`.
      rules: ((regex, "replicate" | "fsdp(<axis>)"), ...), first match wins. "fsdp(data)" splits the largest
        dimension that the axis divides; a leaf with none stays replicated (biases, scales).
      mesh: the device mesh.

    Raises:
      ValueError: an unknown tactic, an axis that the mesh lacks, or a name that no rule covers.
    """
    flat = trees.flatten(shapes)
    tactics = trees.match(flat, rules)
    out = {name: NamedSharding(mesh, _spec(name, leaf.shape, tactics[name], mesh)) for name, leaf in flat.items()}
    return trees.unflatten(out)


def _spec(name, shape, tactic, mesh):
    if tactic == "replicate":
        return PartitionSpec()
    axis = tactic[5:-1]
    if not (tactic.startswith("fsdp(") and tactic.endswith(")")) or axis not in mesh.axis_names:
        allowed = ["replicate", *(f"fsdp({a})" for a in mesh.axis_names)]
        raise ValueError(f"sharding of {name}: {tactic!r} is unknown; allowed on this mesh: {allowed}")
    for dim in sorted(range(len(shape)), key=lambda d: -shape[d]):
        if shape[dim] >= mesh.shape[axis] > 1 and shape[dim] % mesh.shape[axis] == 0:
            return PartitionSpec(*(axis if d == dim else None for d in range(len(shape))))
    return PartitionSpec()


def shard_state(shapes: trees.State, rules, mesh: Mesh) -> trees.State:
    """Shardings of a whole `train_step.TrainState`.

    Parameters by the rules (`infer_sharding`), their averages and moments as they are; all else on every device whole.

    shapes: the state as `jax.ShapeDtypeStruct`s. rules, mesh: as `infer_sharding`.
    """
    params = infer_sharding(shapes.params, rules, mesh)
    by_name, sizes, whole = trees.flatten(params), trees.flatten(shapes.params), replicated(mesh)

    def of_moment(path, leaf):
        # A moment stands under its parameter's name, somewhere in the optimiser's own tree.
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey) and key.key in by_name]
        same = names and sizes[names[-1]].shape == leaf.shape
        return by_name[names[-1]] if same else whole

    return jax.tree.map(lambda _: whole, shapes).replace(
        params=params,
        ema={name: by_name[name] for name in shapes.ema},
        opt_state=jax.tree_util.tree_map_with_path(of_moment, shapes.opt_state),
    )


def put_whole(tree, mesh: Mesh) -> trees.State:
    """A tree of arrays of this process, the same on every one, onto every device of the mesh whole."""
    whole = replicated(mesh)
    if whole.is_fully_addressable:
        return jax.device_put(tree, whole)
    # No device of another process can be copied to: each process fills its own.
    put = lambda x: jax.make_array_from_callback(x.shape, whole, np.asarray(x).__getitem__)
    return jax.tree.map(put, tree)


def put_batch(batch, mesh: Mesh) -> dict[str, jax.Array]:
    """Host arrays of this process -> global arrays, split over the mesh by their first axis.

    Args:
      batch: dict of numpy arrays, [B / process_count, ...].

    Raises:
      ValueError: a global batch that the number of devices does not divide.
    """
    sharding = batch_sharding(mesh)
    for name, value in batch.items():
        if (len(value) * jax.process_count()) % mesh.size:
            raise ValueError(
                f"batch field {name!r} has {len(value) * jax.process_count()} rows in all, which the {mesh.size} "
                "devices of the mesh do not divide; change config.data.batch_size"
            )
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
