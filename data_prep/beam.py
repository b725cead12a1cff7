"""Preparing and building data sets on Apache Beam; `prepare --runner` and `build --runner` start it.

Workers read the download under the same path as the machine that starts the job, and take models from $MSDDF_MODELS
or their own cache.
"""

import json
import tempfile
import uuid

from data_prep import contents, crops

RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner")


def import_beam():
    """The module, or ImportError that says how to get it."""
    try:
        import apache_beam
    except ImportError as error:
        raise ImportError(
            f"Apache Beam cannot load ({error}): run `pip install apache-beam`, or leave --runner out"
        ) from error
    return apache_beam


def run_entries(entries, job, runner, beam_args=()):
    """Prepares entries on a Beam runner, one element a video.

    Args:
      entries: list of `catalog.Entry`. job: `crops.Job`. runner: name in `RUNNERS`.
      beam_args: further flags of Beam, such as --direct_num_workers=2 or --project=NAME.

    Returns:
      list of results of `crops.prepare_entry`, one for each entry.

    Raises:
      ImportError: no Beam. OSError: the pipeline failed; finished videos stay.
    """
    beam = import_beam()
    return _run(beam, entries, _prepare_fn(beam, job), job.out, runner, beam_args)


def write_parts(tasks, write, out, runner, beam_args=()):
    """Writes the parts of built splits on a Beam runner, one element some videos.

    Args:
      tasks: list of arguments of `write`, the first its number, from 0. write: function -> dict of JSON values.
      out: folder that every worker writes to. runner, beam_args, Raises: as `run_entries`.

    Returns:
      list of what `write` returned, in the order of the tasks.
    """
    beam = import_beam()
    results = _run(beam, tasks, beam.Map(lambda task: [task[0], write(*task)]), out, runner, beam_args)
    return [result for _, result in sorted(results, key=lambda pair: pair[0])]


def _run(beam, elements, transform, out, runner, beam_args):
    """What the transform makes of the elements: JSON values, in any order."""
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions([f"--runner={runner}", *beam_args])
    if isinstance(transform, beam.DoFn):
        transform = beam.ParDo(transform)
    # Results travel as files: a runner may be on other machines. Local runs leave nothing in the output.
    with tempfile.TemporaryDirectory() as local:
        folder = crops.open_out(f"{out}/beam-{uuid.uuid4().hex}" if crops.is_remote(str(out)) else local)
        prefix = str(folder / "results")
        try:
            with beam.Pipeline(options=options) as pipeline:
                _ = (
                    pipeline
                    | "elements" >> beam.Create(elements)
                    | "spread" >> beam.Reshuffle()
                    | "work" >> transform
                    | "lines" >> beam.Map(json.dumps)
                    | "write" >> beam.io.WriteToText(prefix)
                )
        except RuntimeError as error:  # what runners make of an exception in a worker
            raise OSError(f"the Beam pipeline failed: {error}") from error
        lines = [line for path in contents.matching(folder, "results*") for line in path.read_text().splitlines()]
        if crops.is_remote(str(out)):
            folder.rmtree()
    return [json.loads(line) for line in lines]


def _prepare_fn(beam, job):
    class PrepareFn(beam.DoFn):
        """Prepares one entry; models are made once a worker."""

        def setup(self):
            self.models = crops.load_models(job)

        def process(self, entry):
            yield crops.prepare_entry(entry, job, **self.models)

    return PrepareFn()
