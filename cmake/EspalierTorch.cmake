# One interface target, espalier::torch, for libtorch as unpacked by tools/setup.sh under .deps/libtorch.
# find_package(Torch) is avoided on purpose: without a visible GPU it selects compute_50, which CUDA 13's nvcc
# rejects, and its config demands a CUDA toolkit even for CPU work (docs/adr/0001-engine.md).
set(ESPALIER_TORCH_DIR "${CMAKE_CURRENT_SOURCE_DIR}/.deps/libtorch/torch" CACHE PATH
    "The torch folder of an unpacked torch==2.11.0 wheel (the one that holds include/ and lib/)")
if(NOT EXISTS "${ESPALIER_TORCH_DIR}/include/ATen/ATen.h")
  message(FATAL_ERROR "libtorch not found in ${ESPALIER_TORCH_DIR}.\n"
                      "Run `make setup` first, or pass -DESPALIER_TORCH_DIR=<site-packages>/torch")
endif()
get_filename_component(_torch_site "${ESPALIER_TORCH_DIR}" DIRECTORY)

add_library(espalier_torch INTERFACE)
add_library(espalier::torch ALIAS espalier_torch)
target_include_directories(espalier_torch SYSTEM INTERFACE
  "$<BUILD_INTERFACE:${ESPALIER_TORCH_DIR}/include;${ESPALIER_TORCH_DIR}/include/torch/csrc/api/include>")
set(_torch_libs torch_cpu c10)
set(ESPALIER_TORCH_RPATH "${ESPALIER_TORCH_DIR}/lib" "${_torch_site}/nvidia/cu13/lib")
if(ESPALIER_CUDA)
  set(_torch_libs torch_cpu torch_cuda c10 c10_cuda)
endif()
list(TRANSFORM _torch_libs PREPEND "-l" OUTPUT_VARIABLE _torch_flags)
# torch_cuda registers its kernels in static initialisers: nothing references it, so --as-needed would drop it.
target_link_options(espalier_torch INTERFACE
  "$<BUILD_INTERFACE:-L${ESPALIER_TORCH_DIR}/lib>" "-Wl,--allow-shlib-undefined")
# libstdc++ comes first: libtorch.so and libtorch_cpu.so export half-linked copies of std::filesystem functions, and the
# loader would take theirs (remove_all then calls a null pointer; seen with torch 2.11.0+cu130). For the same reason
# libtorch.so itself, an empty umbrella otherwise, is not linked.
target_link_libraries(espalier_torch INTERFACE
  "$<BUILD_INTERFACE:-Wl,--push-state,--no-as-needed;-lstdc++;${_torch_flags};-Wl,--pop-state>")

# fmt as shipped with libtorch is the only fmt in the program: its headers win over /usr/include anyway.
add_library(espalier_fmt INTERFACE)
target_include_directories(espalier_fmt SYSTEM INTERFACE "$<BUILD_INTERFACE:${ESPALIER_TORCH_DIR}/include>")

if(ESPALIER_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90a)
  endif()
  enable_language(CUDA)
  # CMake 3.25 does not know how nvcc 13 spells C++20, the standard of our headers.
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  find_package(CUDAToolkit REQUIRED)
  target_compile_definitions(espalier_torch INTERFACE ESPALIER_CUDA=1)
  target_link_libraries(espalier_torch INTERFACE "$<BUILD_INTERFACE:CUDA::cudart>")
endif()
set(CMAKE_BUILD_RPATH ${ESPALIER_TORCH_RPATH})

# ATen.h costs 10 s a file without this and 1.5 s with it. Every torch module reuses this one header.
file(WRITE "${CMAKE_BINARY_DIR}/pch/espalier_pch.cpp" "// Carrier of the shared precompiled header.\n")
add_library(espalier_pch OBJECT "${CMAKE_BINARY_DIR}/pch/espalier_pch.cpp")
target_link_libraries(espalier_pch PRIVATE espalier_torch espalier_fmt espalier_warnings)
target_precompile_headers(espalier_pch PRIVATE <ATen/ATen.h> <string> <vector> <memory> <optional> <filesystem>)
