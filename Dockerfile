# The operator's image; with --target emulator, that of the KMS that is played. dev/image makes the same without Docker.
#   docker build -t registry.example.com/kms-secret-operator:0.1.0 .

# The oldest Rust that the code is for: rust-version in Cargo.toml.
FROM rust:1.89-slim-bookworm AS build
# The TLS library (aws-lc) is C.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential ca-certificates cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
# Nodes with Arm processors may have pages of 64 KiB, which the allocator has to know when it is built.
RUN if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
    && cargo build --release --locked -p kms-secret-operator -p kms-emulator \
    && dev/rootfs /operator target/release/kms-secret-operator \
    && dev/rootfs /emulator target/release/kms-emulator

FROM scratch AS emulator
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title=kms-emulator \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /emulator /
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/kms-emulator"]

FROM scratch AS operator
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title=kms-secret-operator \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /operator /
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/kms-secret-operator"]
