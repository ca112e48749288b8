# MagicAPI Gateway: one static-enough binary on a minimal base. Runs as any user, with a read-only root file system and
# without network at start. Only /data is written.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --profile dist --locked --package magicapi-ai-gateway
# A new volume takes owner and mode from what the image has at its place; without this it would be root's alone. Group 0
# is what platforms give a user whose number they choose.
RUN install -d -m 0770 /out/data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/dist/magicapi-ai-gateway /usr/local/bin/magicapi-ai-gateway
COPY --from=build --chown=65532:0 /out/ /
# Beyond loopback the gateway wants keys of its own before it uses a provider key: GATEWAY_API_KEYS.
ENV HOST=0.0.0.0 \
    PORT=3000 \
    DATA_DIR=/data
VOLUME /data
EXPOSE 3000
ENTRYPOINT ["/usr/local/bin/magicapi-ai-gateway"]
