# The server and the gateway as static programs in an empty image: no shell, no libraries, no user but a number.
#
#   docker build --tag disrust .
#   docker run --rm --network host --security-opt no-new-privileges --security-opt seccomp=deploy/seccomp/disrust.json disrust
#
# docker-compose.yml has the rest of what belongs to it. Only what .dockerignore lets through is sent to the engine.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# In the banner and in disrust_build_info, since there is no repository in here: --build-arg COMMIT=$(git rev-parse --short=12 HEAD)
ARG COMMIT=unknown
# With --target, even if it is the machine's own, the flags are for the program alone: procedural macros cannot be static.
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && DISRUST_COMMIT=$COMMIT RUSTFLAGS='-C target-feature=+crt-static' \
        cargo build --release --locked --package disrust --bin disrust --package disrust-gateway --bin disrust-gateway \
            --target "$target" \
    && cp "target/$target/release/disrust" "target/$target/release/disrust-gateway" / \
    && rm -rf target

FROM scratch
LABEL org.opencontainers.image.title="disrust" \
      org.opencontainers.image.description="A TCP inference server that answers small feature vectors in tens of microseconds" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /disrust /disrust-gateway /
COPY LICENSE-APACHE LICENSE-MIT /
USER 65532:65532
# For the health check, which has nothing else to go by. A flag of the server's beats it.
ENV DISRUST_ADMIN=127.0.0.1:9901
EXPOSE 9900 9901
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/disrust", "health"]
ENTRYPOINT ["/disrust"]
