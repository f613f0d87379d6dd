# The short commands. Each does all the set-up it needs and may be repeated at will; the work is in tools/ and cmake/.
#
#   make demo | test | parity | build | bench | install PREFIX=... | setup | clean | help
#   CUDA=1        also build the CUDA kernels (CUDA=0 switches back); ARROW=1 reads Parquet; BUILD=folder (default build); TYPE=Release|Debug|...

BUILD ?= build
PREFIX ?= /usr/local
export BUILD
export TYPE
export CUDA
export ARROW

.DEFAULT_GOAL := build
.PHONY: build setup demo test parity bench examples install ci clean distclean help

build: setup
	@tools/build.sh espalier
	@echo "built $(BUILD)/espalier; next: make demo, or $(BUILD)/espalier --help"

setup:
	@tools/setup.sh build $(if $(filter-out 0,$(CUDA)),cuda) $(if $(filter-out 0,$(ARROW)),arrow)

demo:
	@tools/setup.sh build demo $(if $(filter-out 0,$(CUDA)),cuda) $(if $(filter-out 0,$(ARROW)),arrow)
	@tools/build.sh espalier
	@tools/demo.sh

# The demo's model comes along: end-to-end tests run on it.
test:
	@tools/setup.sh build demo $(if $(filter-out 0,$(CUDA)),cuda) $(if $(filter-out 0,$(ARROW)),arrow)
	@tools/test.sh

parity:
	@if [ -n "$${PARITY_PYTHON:-}" ]; then tools/setup.sh build demo; else tools/setup.sh build demo parity; fi
	@tools/build.sh
	@tests/parity/run.sh

bench: setup
	@tools/build.sh espalier espalier_benches
	@tools/bench.sh

examples: setup
	@tools/build.sh espalier espalier_examples

install: setup
	@tools/build.sh espalier
	@cmake --build "$(BUILD)" --target espalier_libraries
	@cmake --install "$(BUILD)" --prefix "$(PREFIX)" > "$(BUILD)/install.log"
	@echo "installed under $(PREFIX); next: $(PREFIX)/bin/espalier doctor"

ci: setup
	@tools/ci.sh all

clean:
	rm -rf "$(BUILD)" out

# Also what the set-up fetched: the next make needs the network again.
distclean: clean
	rm -rf .deps

help:
	@echo "make demo                 set up, build, then measure, prune, heal and evaluate a real language model (out/demo/)"
	@echo "make test                 set up, build, then every test that needs no accelerator"
	@echo "make parity               compare with transformers, peft, gguf, tokenizers (fetches about 2 GB once)"
	@echo "make build                set up and build the program $(BUILD)/espalier"
	@echo "make bench                build and run the benches, results under benches/results/ and out/bench/"
	@echo "make examples             build examples/"
	@echo "make install PREFIX=DIR   program, libraries, headers, CMake package, man pages, completions"
	@echo "make setup                only fetch what the build needs (packages, libtorch)"
	@echo "make ci                   every step of tools/ci.sh"
	@echo "make clean | distclean    remove the build | also what the set-up fetched"
	@echo "with CUDA=1               build for NVIDIA GPUs too (CUDA 13 toolkit needed)"
	@echo "with ARROW=1              read Parquet files too (fetches the pinned Arrow libraries, 50 MB)"
