# syntax=docker/dockerfile:1
# The images of both services: `make images`. Neither has a shell. Both run as user 65532 and write nothing to their disk.

ARG RUST_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
WORKDIR /src
ARG BUILD_COMMIT=unknown
ENV BUILD_COMMIT=${BUILD_COMMIT}
COPY . .
# Dependencies and what was compiled before stay in caches of the builder, outside of every layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package ingest-worker --package analytics-api --bins && \
    mkdir /out /debug && \
    for name in ingest-worker analytics-api; do \
        objcopy --only-keep-debug "target/release/$name" "/debug/$name.debug" && \
        objcopy --strip-debug --strip-unneeded --add-gnu-debuglink="/debug/$name.debug" \
            "target/release/$name" "/out/$name" || exit 1; \
    done

# What a debugger or `addr2line` needs: `make images` keeps it beside the images, not in them.
FROM scratch AS debug
COPY --from=build /debug/ /

FROM ${BASE_IMAGE} AS service
ARG BUILD_COMMIT=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.licenses="MIT OR Apache-2.0" \
    org.opencontainers.image.revision="${BUILD_COMMIT}" \
    org.opencontainers.image.version="${VERSION}"
USER 65532:65532
EXPOSE 9090
ENV ADMIN_PORT=9090

FROM service AS ingest-worker
LABEL org.opencontainers.image.title="ingest-worker" \
    org.opencontainers.image.description="Stores usage events from RabbitMQ in PostgreSQL, each once"
COPY --from=build /out/ingest-worker /usr/local/bin/ingest-worker
ENTRYPOINT ["/usr/local/bin/ingest-worker"]

FROM service AS analytics-api
LABEL org.opencontainers.image.title="analytics-api" \
    org.opencontainers.image.description="Answers questions about usage"
EXPOSE 8080
COPY --from=build /out/analytics-api /usr/local/bin/analytics-api
ENTRYPOINT ["/usr/local/bin/analytics-api"]
