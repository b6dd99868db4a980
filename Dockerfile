# What the canary of charts/lgtm runs: the command, and the files of the checkout that it reads.
FROM python:3.13-slim AS wheel
WORKDIR /stackproof
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml README.md LICENSE versions.yaml ./
COPY src src
COPY schemas schemas
COPY tools tools
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir dist .

# Nothing of what only tests, linters and builds need.
FROM python:3.13-slim
WORKDIR /stackproof
COPY requirements-runtime.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements-runtime.lock
COPY --from=wheel /stackproof/dist dist
RUN pip install --no-cache-dir --no-deps dist/*.whl && rm -r dist
COPY versions.yaml ./
COPY charts charts
COPY observability observability
COPY flux flux
COPY tools tools
USER 65532:65532
ENTRYPOINT ["stackproof"]
