# Each target does all its own set-up from Python 3.11 and pip. ARGS is passed on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ML_HOST := .venv-label-studio-ml
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# Spinning threads are ruinous on few cores (docs/measurements.md, "Threads on few cores").
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0

.PHONY: demo test torture bench check format base-models learning-curves lock sbom audit chromium servers clean help

help:
	@echo "make demo [ARGS='--rounds 2 --exit --json demo.json']   the whole loop on this machine"
	@echo "make test                                               linter, type checker and all tests"
	@echo "make test ARGS='-k brush'                               the tests that match, without linter and type checker"
	@echo "make torture [KILLS=200] [SEED=7] [FORM=embedded]       kill everything, lose nothing"
	@echo "make bench [ARGS='--only start --json start.json']       how fast everything is, as ratios"
	@echo "make learning-curves [ARGS='--minutes 30']              quality against corrected images, docs/"
	@echo "make sbom | lock | audit                                 bill of materials, locked versions, advisories"
	@echo "make check | format | base-models | clean"

demo: $(VENV)/.runtime
	$(BIN)/maskloop demo $(ARGS)

# Without ARGS: linter, type checker and all tests, in two processes (tests/two_workers.py). With ARGS: the tests that
# they choose, at once and in one process.
TWO_WORKERS := -n 2 --dist loadgroup --no-loadscope-reorder
# Compiled files are kept even where the environment says otherwise: tests start hundreds of Python processes.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(if $(ARGS),,check) $(ML_HOST)/.installed chromium servers
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),$(TWO_WORKERS))

# The loop on a real Label Studio while its processes are killed; the same SEED draws the same plan.
# FORM=embedded (SQLite, Valkey) or FORM=servers (PostgreSQL, Redis) runs one of its two forms.
FORM_embedded := -k test_loop_under_sigkill
FORM_servers := -k test_loop_on_redis_and_postgres
torture: $(VENV)/.dev
	MASKLOOP_TORTURE_KILLS=$(or $(KILLS),200) MASKLOOP_TORTURE_SEED=$(or $(SEED),7) $(BIN)/python -m pytest tests/torture -s $(FORM_$(FORM)) $(ARGS)

# Side by side with what one would otherwise write; a Label Studio in .venv-studio (make demo) is measured too.
bench: $(VENV)/.dev
	$(BIN)/maskloop bench $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Makes the shipped checkpoints again (about 15 minutes on one core).
# The third is made of photos that are not in the repository: PHOTOS=folder.
base-models: $(VENV)/.runtime
	$(BIN)/maskloop base-model build backend/maskloop/models/tiny-mask2former --family mask2former --seed 0
	$(BIN)/maskloop base-model build backend/maskloop/models/tiny-oneformer --family oneformer --seed 0
	$(if $(PHOTOS),$(PIP) -e ".[backbones]" && $(BIN)/maskloop base-model build backend/maskloop/models/tiny-photos --photos $(PHOTOS) --seed 0)

# Quality against the number of corrected images, on real images in ../shared/data; goes on where it stopped.
learning-curves: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks.learning_curves $(ARGS)

# What the containers install, with hashes; torch and its CUDA libraries come from an index of their own.
TOOLS := .venv-tools
LOCK := docker/requirements.lock
FROM_TORCH_INDEX := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver \
	nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx
lock: $(TOOLS)/.installed
	$(TOOLS)/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --extra postgres -c constraints.txt \
		$(addprefix --no-emit-package ,$(FROM_TORCH_INDEX)) pyproject.toml -o $(LOCK)

# build/sbom.cdx.json (CycloneDX) and build/licences.md, of an environment that holds what the CPU image holds.
sbom: $(TOOLS)/.installed
	rm -rf build/sbom-env && $(PYTHON) -m venv build/sbom-env
	build/sbom-env/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -c constraints.txt torch
	build/sbom-env/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r $(LOCK)
	build/sbom-env/bin/python -m pip --disable-pip-version-check install --quiet --no-deps .
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --of JSON -o build/sbom.cdx.json build/sbom-env
	$(TOOLS)/bin/pip-licenses --python build/sbom-env/bin/python --with-urls --format markdown --output-file build/licences.md
	rm -rf build/sbom-env

# Known advisories of the locked versions; asks PyPI, so it needs the network.
audit: $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --disable-pip --require-hashes -r $(LOCK)

$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet uv cyclonedx-bom pip-licenses pip-audit
	@touch $@

# What tests need beside Python; where it cannot be installed, those that need it say that they were skipped.
APT_INSTALL := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends
HAS_APT = [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	|| if $(HAS_APT); then \
		echo "installing chromium"; apt-get update -qq >/dev/null && $(APT_INSTALL) chromium >/dev/null; \
	else echo "no chromium: the browser tests will be skipped"; fi

# A real PostgreSQL and Redis. The tests start them; Debian's own services are told not to.
servers:
	@wanted=""; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || wanted="postgresql"; \
	command -v redis-server >/dev/null || command -v valkey-server >/dev/null || wanted="$$wanted redis-server"; \
	if [ -z "$$wanted" ]; then :; elif $(HAS_APT); then \
		echo "installing $$wanted"; apt-get update -qq >/dev/null && RUNLEVEL=1 $(APT_INSTALL) $$wanted >/dev/null; \
	else echo "missing: $$wanted; their tests will be skipped"; fi

clean:
	rm -rf $(VENV) $(ML_HOST) $(TOOLS) .venv-studio .maskloop build *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing maskloop into $(VENV) (torch is large: a minute or more)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing the tools for tests"
	@$(PIP) -e '.[dev]'
	@touch $@

# label-studio-ml 1.0.9 needs versions of 2021, which stay out of .venv. The .pth file lets this environment use
# .venv's other packages (torch is large); its own packages come first on the path.
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
$(ML_HOST)/.installed: $(VENV)/.dev constraints-label-studio-ml.txt
	@echo "installing label-studio-ml into $(ML_HOST)"
	@rm -rf $(ML_HOST)
	@$(BIN)/python -m venv $(ML_HOST)
	@$(BIN)/python $(PURELIB) > "$$($(ML_HOST)/bin/python $(PURELIB))/maskloop-packages.pth"
	@$(ML_HOST)/bin/python -m pip --disable-pip-version-check install --quiet \
		--ignore-installed --no-deps -r constraints-label-studio-ml.txt
	@$(ML_HOST)/bin/python -m pip --disable-pip-version-check install --quiet \
		-c constraints-label-studio-ml.txt -e '.[label-studio-ml]'
	@touch $@
