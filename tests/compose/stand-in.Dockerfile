# Stand-ins for public images, for machines that reach no image registry. `machine` holds how this machine's pip reaches
# its packages, so that the Dockerfile under test needs no arguments.
FROM compose-test/debian AS python
COPY machine/ /
RUN ln -s /usr/bin/python3 /usr/local/bin/python \
 && ln -s /usr/bin/python3 /usr/local/bin/python3 \
 && ln -s /usr/bin/pip3 /usr/local/bin/pip
CMD ["python3"]

FROM compose-test/debian AS envoy
COPY envoy /usr/local/bin/envoy
ENTRYPOINT ["/usr/local/bin/envoy"]
