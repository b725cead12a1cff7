# From nothing to a trained detector in a container; docs/howto/many_devices.md says what its commands show.
#   docker build --target cpu -t msddf_jax:cpu .
#   docker run --rm msddf_jax:cpu                                       the demo
#   docker run --rm msddf_jax:cpu bash launch/test.sh                   the tests
#   docker build --target cuda -t msddf_jax:cuda .                      --build-arg CUDA=cuda12: drivers before 580
#   docker run --rm --gpus all --shm-size=8g -v "$PWD/data:/data" msddf_jax:cuda \
#     bash launch/local.sh configs/msddf.py /data/runs/msddf --config.data.data_dir=/data/tfds
FROM debian:bookworm-slim AS cpu
RUN apt-get update && apt-get install -y --no-install-recommends \
    ca-certificates git python3 python3-venv libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /msddf_jax
COPY . .
RUN bash launch/install.sh test,gcs
CMD ["bash", "launch/demo.sh"]

FROM cpu AS cuda
# The wheels bring CUDA; the driver comes from the host, through NVIDIA's container toolkit.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG CUDA=cuda13
RUN bash launch/install.sh test,gcs,$CUDA
