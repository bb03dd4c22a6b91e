# The Consul server that tools/consul pins, for where no registry has the image.
FROM scratch
COPY consul /bin/consul
ENTRYPOINT ["/bin/consul"]
