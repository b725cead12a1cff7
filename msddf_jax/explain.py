"""Maps of where a detector looks, for images and videos: `python -m msddf_jax.explain --workdir DIR FILE... --out DIR`.

Writes `<out>/explanations.jsonl`, one line a file, which is printed too, and for each face that is explained
`<out>/pictures/<path of the file below the folder that all inputs share>/maps_<frame>_<face>.png`. A file that cannot
be used gives a line with `error` {code, message} and the others go on; the exit code is 1 where no file was explained.
The maps are those of `saliency`; how far they can be believed is measured by `msddf_jax.faithfulness`.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import PIL.Image
from absl import app, flags, logging
from tqdm import tqdm

from msddf_jax import command, inference, saliency
from msddf_jax.faces import detect, extract, fetch, find, reading
from msddf_jax.faces import landmarks as face_landmarks
from msddf_jax.show import plots
from msddf_jax.show import records as show_records
from msddf_jax.statistics import verdict


def explain_files(
    model, paths, out, *, calibration=None, methods=None, landmarks="mediapipe", num_frames=4, batch_size=8
) -> list[dict]:
    """Explains every file named or found, in order; prints and writes one JSON line each.

    Args:
      model: `inference.Inference`. paths: files, and folders to search through. out: folder for the results; an
        `explanations.jsonl` in it is replaced.
      calibration: of these weights (`verdict.calibration_of`), or None.
      methods: names of `saliency.METHODS`, None for all that the detector has.
      landmarks: "mediapipe", or "sidecar": `<stem>.landmarks.npy` beside each file.
      num_frames: frames sampled evenly from a video; every face of them is explained. batch_size: faces at once.

    Returns:
      the lines, as dicts: file, calibration ({fitted_on, threshold} or null), faces ({frame_index, box in the frame,
      score, probability, label and lr (of `show.records.weigh`, or null) of this face alone, peak {method: [x, y]},
      picture below `out`}), peak in shares of the crop's sides, from its left and top, null where the map is constant;
      drops ({frame_index, code, detail}); or file, error {code, message}.

    Raises:
      ValueError: a method that the detector has not. fetch.ModelFileError, ImportError: the face models cannot be had.
      OSError: the results cannot be written.
    """
    out = pathlib.Path(out)
    explain_fn = saliency.make_explain_fn(model.config, methods)
    found, _ = find.find_files(paths, skip=out / "pictures")
    usable = [path for path, error in found if error is None]
    settings = {"size": model.config.data.image_size, "preset": model.config.data.preset, "num_frames": num_frames}
    settings |= {"landmarks": landmarks, "detector": None, "landmarker": None}
    if landmarks == "mediapipe" and usable:
        settings |= {"detector": detect.make_detector(), "landmarker": face_landmarks.make_landmarker()}
    names, records = find.picture_names(usable), []
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "explanations.jsonl", "w", encoding="utf-8") as lines:
        for path, item in tqdm(reading.extract_all(found, settings), total=len(found), desc="explain", unit="file"):
            record = {"file": str(path)}
            if item.frames:
                maps = explain_crops(explain_fn, model.params, [face.image for face in item.frames], batch_size)
                judged = [verdict.judge([score], calibration, level="frame") for score in maps["score"]]
                record["calibration"] = judged[0].calibration
                record["faces"] = _draw(path, item, maps, judged, out, pathlib.Path("pictures") / names[path])
                for face in record["faces"]:
                    face["lr"] = show_records.weigh(face["score"], calibration, "frame")
                record["drops"] = [dataclasses.asdict(drop) for drop in item.drops]
            else:
                record["error"] = {"code": item.drops[0].code, "message": item.drops[0].detail}
            text = json.dumps(record, allow_nan=False)
            tqdm.write(text, file=sys.stdout)
            lines.write(text + "\n")
            records.append(record)
    return records


def explain_crops(explain_fn, weights, crops, batch_size=8) -> dict[str, np.ndarray]:
    """Score and maps of crops, in batches of one size.

    Args:
      explain_fn: of `saliency.make_explain_fn`. weights: for it. crops: uint8 RGB [N, S, S, 3], N >= 1.
      batch_size: crops at once.

    Returns:
      {"score": float32 [N], <method>: float32 [N, g, g]}.
    """
    parts = []
    for start in range(0, len(crops), batch_size):
        batch = np.stack(crops[start : start + batch_size])
        rows = len(batch)
        batch = np.concatenate([batch, np.zeros((batch_size - rows, *batch.shape[1:]), np.uint8)])
        maps = explain_fn(weights, {"image": batch})
        parts.append({name: np.asarray(value)[:rows] for name, value in maps.items()})
    # A compiled function gives its results by name; pictures show them in the order of the methods.
    names = ["score", *(name for name in saliency.METHODS if name in parts[0])]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def peak_of(heat) -> list[float] | None:
    """(x, y) of the middle of a map's largest cell, in shares of its sides; None where the map is constant."""
    if heat.max() == heat.min():
        return None
    row, column = np.unravel_index(np.argmax(heat), heat.shape)
    return [round((column + 0.5) / heat.shape[1], 4), round((row + 0.5) / heat.shape[0], 4)]


def _draw(path, item, maps, judged, out, folder):
    """Writes the pictures of one file; returns what its line says of each face."""
    (out / folder).mkdir(parents=True, exist_ok=True)
    for old in (out / folder).glob("maps_*.png"):
        old.unlink()  # of an earlier run, perhaps of another model
    title, faces = pathlib.Path(path).name, []
    for i, face in enumerate(item.frames):
        number = sum(other.frame_index == face.frame_index for other in item.frames[:i])
        own = {name: heat[i] for name, heat in maps.items() if name != "score"}
        text = title if item.info is None else f"{title}, frame {face.frame_index}"
        captions = {saliency.METHODS[name]: heat for name, heat in own.items()}
        name = folder / f"maps_{face.frame_index:06d}_{number}.png"
        PIL.Image.fromarray(plots.draw_maps(face.image, captions, text, score=judged[i].score)).save(out / name)
        faces.append(
            {
                "frame_index": int(face.frame_index),
                "box": [round(float(v), 1) for v in face.bbox],
                "score": judged[i].score,
                "probability": judged[i].probability,
                "label": judged[i].label,
                "peak": {method: peak_of(heat) for method, heat in own.items()},
                "picture": name.as_posix(),
            }
        )
    return faces


def define_flags(values=flags.FLAGS) -> None:
    """Defines the flags of the command; not at import, where they clash with those of other commands."""
    keys = {"flag_values": values}
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, required=True, **keys)
    command.define_path("out", None, "Folder for explanations.jsonl and the pictures.", required=True, **keys)
    names = ", ".join(saliency.METHODS)
    flags.DEFINE_list("methods", None, f"Which of {names}; all that the detector has by default.", **keys)
    flags.DEFINE_enum(
        "landmarks",
        "mediapipe",
        extract.LANDMARK_SOURCES,
        "Find faces with YuNet and MediaPipe, or read <stem>.landmarks.npy beside each file.",
        **keys,
    )
    flags.DEFINE_integer("num_frames", 4, "Frames sampled evenly from a video.", lower_bound=1, **keys)
    flags.DEFINE_integer("batch_size", 8, "Faces explained at once.", lower_bound=1, **keys)


def main(argv) -> int:
    """Explain files. Returns the exit code: 0, or 1 where no file was explained, with one line that says why."""
    values = flags.FLAGS
    if len(argv) < 2:
        logging.error("no file or folder given: python -m msddf_jax.explain --workdir DIR --out DIR FILE_OR_FOLDER...")
        return 1
    if "verbosity" in values and not values["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        model = inference.load_for_inference(values.workdir)
        records = explain_files(
            model,
            argv[1:],
            values.out,
            calibration=verdict.find_calibration(values.workdir, model, model.config.get("aggregate", "mean")),
            methods=values.methods,
            landmarks=values.landmarks,
            num_frames=values.num_frames,
            batch_size=values.batch_size,
        )
    except (OSError, ValueError, fetch.ModelFileError, ImportError) as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s: %s", type(error).__name__, error)
        return 1
    explained = sum("faces" in record for record in records)
    print(f"{explained} of {len(records)} files explained: {values.out}", file=sys.stderr)
    return 0 if explained else 1


if __name__ == "__main__":
    define_flags()
    app.run(main)
