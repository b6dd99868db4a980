# What the canary of charts/lgtm runs: the command, and the files of the checkout that it reads.
FROM python:3.13-slim
WORKDIR /stackproof
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml README.md LICENSE versions.yaml ./
COPY src src
COPY charts charts
COPY observability observability
COPY tools tools
RUN pip install --no-cache-dir --no-build-isolation --no-deps .
USER 65532:65532
ENTRYPOINT ["stackproof"]
