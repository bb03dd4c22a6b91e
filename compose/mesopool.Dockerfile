# One static binary is the whole image. start.sh builds it on this machine and
# hands it in as "mesopool".
FROM scratch
COPY mesopool /mesopool
ENTRYPOINT ["/mesopool"]
