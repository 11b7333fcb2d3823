# ionledger in a container: the one binary, with TLS to Kafka, as a user without rights, its data folder a volume.
#
#   docker build -t ionledger .
#   docker run --init -v ionledger:/data -p 7070:7070 -p 8080:8080 ionledger
#
# docker-compose.yml runs it as independent services on a Kafka of three brokers; docs/kafka.md says what that takes.

FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libssl-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo install --locked --path cli --features kafka-tls --root /out --no-track

FROM debian:bookworm-slim
# curl asks for the processes' health, by the address that `hostname` tells.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl hostname libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home ionledger \
    && install -d -o ionledger -g ionledger -m 700 /data
COPY --from=build /out/bin/ionledger /usr/local/bin/ionledger
COPY docker/machine /usr/local/bin/ionledger-machine
USER ionledger
ENV IONLEDGER_DATA=/data
VOLUME /data
# The API; the ports of services are those that their files name.
EXPOSE 7070
ENTRYPOINT ["ionledger"]
CMD ["up", "--listen", "0.0.0.0:7070"]
