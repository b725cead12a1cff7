"""The preparation of a data set on Apache Beam, one element a video; `prepare --runner` starts it.

Workers read the download under the same path as the machine that starts the job, and take models from $MSDDF_MODELS
or their own cache.
"""

import json
import tempfile
import uuid

from data_prep import crops

RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner")


def import_beam():
    """The module, or ImportError that says how to get it."""
    try:
        import apache_beam
    except ImportError as error:
        raise ImportError(
            f"Apache Beam cannot load ({error}): run `pip install apache-beam` (it asks for pillow<13), or leave "
            "--runner out"
        ) from error
    return apache_beam


def run_entries(entries, job, runner, beam_args=()):
    """Prepares entries on a Beam runner.

    Args:
      entries: list of `catalog.Entry`. job: `crops.Job`. runner: name in `RUNNERS`.
      beam_args: further flags of Beam, such as --direct_num_workers=2 or --project=NAME.

    Returns:
      list of results of `crops.prepare_entry`, one for each entry.

    Raises:
      ImportError: no Beam. OSError: the pipeline failed; finished videos stay.
    """
    beam = import_beam()
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions([f"--runner={runner}", *beam_args])
    # Results travel as files: a runner may be on other machines. Local runs leave nothing in the output.
    with tempfile.TemporaryDirectory() as local:
        folder = crops.open_out(f"{job.out}/beam-{uuid.uuid4().hex}" if crops.is_remote(job.out) else local)
        prefix = str(folder / "results")
        try:
            with beam.Pipeline(options=options) as pipeline:
                _ = (
                    pipeline
                    | "entries" >> beam.Create(entries)
                    | "spread" >> beam.Reshuffle()
                    | "prepare" >> beam.ParDo(_prepare_fn(beam, job))
                    | "lines" >> beam.Map(json.dumps)
                    | "write" >> beam.io.WriteToText(prefix)
                )
        except RuntimeError as error:  # what runners make of an exception in a worker
            raise OSError(f"the Beam pipeline failed: {error}") from error
        lines = [line for path in folder.glob("results*") for line in path.read_text().splitlines()]
        if crops.is_remote(job.out):
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
